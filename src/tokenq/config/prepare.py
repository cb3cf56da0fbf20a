"""Every setting of `tokenq prepare`. The steps run in the order of the fields; null leaves a step out."""

from dataclasses import dataclass, field
from typing import Literal

from tokenq.config.checks import checked_seed
from tokenq.errors import ConfigError
from tokenq.preparation.against import Against
from tokenq.preparation.augment import Augment
from tokenq.preparation.duplicates import Exact, Near
from tokenq.preparation.filters import Empty, Language, Length, LengthRatio
from tokenq.preparation.normalise import Normalise
from tokenq.preparation.split import Split
from tokenq.preparation.tokenised import Tokenise


@dataclass(frozen=True)
class PrepareConfig:
    """Clean, deduplicate, split and tokenise text data, with a report of what was removed and why."""

    files: list[str] = field(default_factory=list)
    """Files to read: .jsonl, .json, .parquet, .csv, .tsv, .txt (a text a line), train.{en,de}, or a `datasets` id."""
    text_column: str = "text"
    """Column that holds the text."""
    target_column: str | None = None
    """Column that holds its translation; null: there is none."""
    output_dir: str | None = None
    """Folder for what comes out, such as prepared/stories."""
    overwrite: bool = False
    """Whether what an earlier `tokenq prepare` left in `output_dir` is replaced."""
    seed: int = 0
    """Seed of every random stream, >= 0."""
    encoding: str | None = None
    """Encoding of the files, such as latin-1 or gb18030; null: UTF-8."""
    on_bad_text: Literal["stop", "drop"] = "stop"
    """What happens at text that could not be decoded: stop with its place, or remove and count the row."""
    normalise: Normalise | None = field(default_factory=Normalise)
    """One way of writing the same text."""
    empty: Empty | None = field(default_factory=Empty)
    """Remove empty texts."""
    length: Length | None = None
    """Remove texts that are too short or too long."""
    language: Language | None = None
    """Remove texts in other languages."""
    ratio: LengthRatio | None = None
    """Remove translations of very different length."""
    exact: Exact | None = field(default_factory=Exact)
    """Remove exact duplicates."""
    near: Near | None = field(default_factory=Near)
    """Remove near-duplicates."""
    against: Against | None = None
    """Remove rows that other files hold as well."""
    split: Split | None = field(default_factory=Split)
    """Divide the rows into parts; null: all are train."""
    augment: Augment = field(default_factory=Augment)
    """Add changed copies to train."""
    tokenise: Tokenise | None = None
    """Write the tokens too, as an Arrow table."""

    def __post_init__(self) -> None:
        checked_seed(self.seed)
        if not self.files:
            raise ConfigError("files: got none, expected at least one file to read; write --files FILE")
        if self.output_dir is None:
            raise ConfigError("output_dir: got null, expected a folder for what comes out; write --output_dir FOLDER")
        if self.target_column == self.text_column:
            raise ConfigError(f"target_column: got {self.target_column!r}, expected another column than text_column")
        if self.target_column is None:
            self._refuse_translation_settings()

    def _refuse_translation_settings(self) -> None:
        """Settings of translations say nothing without any, so someone expects what will not happen."""
        advice = "set target_column, or leave this out"
        if self.ratio is not None:
            raise ConfigError(f"ratio: got {self.ratio.most:g} without a target_column; {advice}")
        if self.language is not None and self.language.target_languages:
            raise ConfigError(f"language.target_languages: got some without a target_column; {advice}")
