"""Every error that tokenq raises on purpose.

    TokenqError
    ├── UserError            the caller's mistake; the command line exits with 2
    │   ├── ConfigError      a key, type or range in the configuration
    │   ├── DataError        a file, row or column of the data
    │   ├── RewardError      a reward function that raised or answered wrongly
    │   └── CheckpointError  nothing whole to resume from, or another run's folder
    └── Diverged             a loss or a parameter became NaN or infinite

Every message is one line: what was got, what was expected, what to do.
"""


class TokenqError(Exception):
    """The root of all errors that tokenq raises on purpose."""


class UserError(TokenqError):
    """Something the caller can put right; the command line exits with status 2."""


class ConfigError(UserError):
    """An unknown key, a wrong type or a value out of range."""


class DataError(UserError):
    """A missing file, a malformed row, a reward that is not a finite number."""


class RewardError(UserError):
    """A reward function raised, or returned something that is not one finite number per completion."""


class CheckpointError(UserError):
    """No whole checkpoint to resume from, or a folder that belongs to another run."""


class Diverged(TokenqError):
    """A loss or gradient stopped being finite. What was saved before is whole; Q-learning saves its last good state."""
