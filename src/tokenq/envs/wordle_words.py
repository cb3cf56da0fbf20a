"""Common English words of five letters, for word games where no list is given."""

WORDS: tuple[str, ...] = tuple(
    """
    about above actor adult after again agent agree ahead alarm album alert alive allow alone along angle angry apple
    apron arise armor arrow aside atlas attic audio awake award bacon badge baker basic basin beach beard beast begin
    being bench birth black blame blank blaze bleed blend blind block bloom board boost booth brain brake brave bread
    break brick bride bring broad broom brown brush build bunch cabin cable camel candy carry catch cause cedar chain
    chair chalk charm chase check cheek chest chief child chill choir civil claim class clean clear clerk click cliff
    climb clock cloth cloud coach cocoa color coral couch count court cover crack craft crane crash cream crime crowd
    crown curve daily dairy dance dealt delay depth diary dirty dough draft drama dream dress drift drill drink drive
    eager early earth eight elbow empty enemy enter equal error event every exact exist extra faint faith false fancy
    fault favor feast fence fever field fifth fight flame flash fleet float flood floor flour focus force forum found
    frame fresh front frost fruit funny ghost giant glass glory glove grade grain grand grape grass great green greet
    group guard guess guest guide habit happy harsh heart heavy hello honey honor horse hotel house human humor ideal
    image index inner input ivory jelly jewel joint judge juice knife label labor large later laugh layer learn lemon
    level light limit linen liver local logic loose lucky lunch magic major march match mayor medal melon mercy metal
    meter minor mixed model money month moral motor mount mouse mouth movie music never night noble noise north novel
    nurse ocean offer olive onion opera orbit order organ other ounce owner paint panel party pasta peace pearl phone
    photo piano piece pilot pitch place plain plane plant plate point porch pound power press pride print prize proof
    proud pupil queen quick quiet quilt radio raise ranch range rapid ratio reach ready ridge right roast robot rough
    round route royal rural salad sauce scale scene score sense serve seven shade shake shape share sharp shelf shell
    shine shirt shore short shout sight skill sleep slice slide smart smell smile smoke snake solid sound south spare
    speak spoon sport staff stage stair stand steam steel stick stone store storm story stove straw sugar sunny sweet
    taste teach thank thick thumb tiger title toast today token tooth topic torch total touch tower track trade trail
    train trust truth twist uncle under union upper urban usual valid value video visit vivid voice waste watch water
    whale wheat white whole woman world worry worth wrist write young youth zebra
    """.split()
)
