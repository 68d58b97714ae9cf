"""What a sentence says of which cells, which groups and which columns: slots of the tools, found in its words.

Names are resolved against the data and the resources. A word that is nearly a name of the data ("condtion") is taken
for it when nothing else comes near; what stays open is left empty, and the session asks back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pandas as pd
from rapidfuzz import fuzz, process

from instructcell.retrieval.names import Mention
from instructcell.toolbox.arguments import EITHER, UNSURE, Cells
from instructcell.toolbox.cells import OWN_CLUSTERS, cluster_column
from instructcell.toolbox.data import groupings

NEAR = 86  # rapidfuzz ratio from which a word is a column's name or value with a typing error
SHORTEST_NEAR = 5  # letters; shorter words must be written as they are

UNDO = re.compile(
    r"^\W*(?:(?:oops|no|ok|please|wait|sorry|hm+|that was wrong|can you|could you)\W+)*"
    r"(?:undo+|revert|roll\s+(?:it|that)?\s*back|(?:take|put)\s+(?:that|it|this)\s+back|(?:go|step)\s+"
    r"back(?!\s+to\s+(?:all|the))"
    r"|(?:go\s+)?(?:one|a)\s+step\s+back|ctrl\s*-?\s*z)\b",
    re.IGNORECASE,
)
RESTART = re.compile(
    r"^\W*(?:(?:ok|please|let'?s|let us|can we|could we|now|i want to|can you)\W+)*"
    r"(?:start\s+(?:again|over|anew|from\s+scratch)|begin\s+(?:again|anew)|restart|reset|from\s+scratch"
    r"|(?:clear|forget|wipe|drop|delete)\s+(?:everything|all(?:\s+(?:that|results|of\s+(?:it|this)))?)\s*)[\s.!?]*"
    r"(?:please|everything|all|the\s+(?:session|conversation|chat))?[\s.!?]*$",
    re.IGNORECASE,
)
POINTS_BACK = re.compile(
    r"\b(?:them|those|they|their|the same ones|of which|the ones"
    r"|(?:that|this)\s+one|^which\s+ones|remains?|(?:is|are)\s+left"
    r"|that (?:group|population|selection|cell|cluster|subset|subpopulation|lot|bunch|compartment|fraction|set|kind"
    r"|type)"
    r"|(?:in|of|on|about|for|kill|hit)\s+it|it\s+(?:express\w*|be)|call\s+it|is\s+it(?=\s+(?:an?|sensitive|resistant"
    r"|enriched|depleted|pure|mostly|mainly|mixed|homogeneous|evenly)\b)|sets?\s+it\s+apart|its\s+cells|such\s+(?:an?\s+)?cells?"
    r"|(?:cells|ones)\s+like\s+that|(?:of|is)\s+that(?=\W*$))\b"
    # "how high is GCG there", but not "how many are there", "is there", "what is in there", "hi there"
    r"|(?<!\bin )(?<!\bis )(?<!\bare )(?<!\bwas )(?<!\bwere )(?<!\bbe )(?<!\bhi )(?<!\bhey )(?<!\bhello )"
    r"(?<!\bout )\bthere\b"
    r"(?!'s|\s+(?:is|are|was|were|be|must|should|might|may|could|an?|any|no|some|enough|more|seem\w*|exist\w*)\b)",
    re.IGNORECASE,
)
# The request before once more, with what is named now: "how is cluster 1 in that respect?", "same numbers by donor".
LIKEWISE = re.compile(
    r"\bin\s+(?:that|this)\s+(?:respect|regard|sense|way|matter)\b|\b(?:likewise|ditto)\b"
    r"|\bsame\s+(?:[\w-]+\s+){0,3}?(?:for|in|with|by|per|but|on|of)\b(?!\s+(?:type|kind|size|depth|number))"
    r"|\b(?:repeat|redo|rerun|run|apply|try|do)\s+(?:it|that|this|the\s+(?!same)\w+)\s+(?:again\s+)?(?:for|in|with|on|over|across|by|per|but)\b"
    r"|\bagain,?\s+(?:for|in|with|on|by|per|but)\b|\bbreak\s+(?:it|that|this|them)\s+down\b|\b(?:broken\s+down|split(?:\s+(?:it|that|this))?)\s+by\b"
    r"|\bdiffer(?:ence|ent|s)?\s+(?:\w+\s+){0,6}in\s+(?:that|this)\W*$",
    re.IGNORECASE,
)
# Nothing but that: after a file was switched, or for another try.
REPEATS = re.compile(
    r"^\W*(?:(?:and|so|ok(?:ay)?|now|then|please|let'?s|do|run|can\s+you|could\s+you|i\s+want)\W+)*"
    r"(?:(?:the\s+)?(?:very\s+)?same(?:\s+(?:question|thing|request|analysis|procedure|drill|again|once\s+more|please))*"
    r"|(?:repeat|redo|rerun)(?:\s+(?:it|that|this))?|once\s+more|again|ditto)"
    r"(?:\s+(?:again|now|please|here|there|too|as\s+well|(?:for|in|with|on)\s+(?:it|this|that|(?:this|that|the\s+other|the"
    r"\s+new)\s+(?:one|file|sample|data\s?set|data))))*\W*$",
    re.IGNORECASE,
)
SWAPS = re.compile(
    r"^\W*(?:(?:now|please|and|ok|then)\W+)*(?:swap|replace|exchange)\s+(?P<old>.+?)\s+(?:for|with|by)\s+(?P<new>.+?)\W*$",
    re.I,
)
INSTEAD_OF = re.compile(
    r"^(?P<new>.+?)\s+(?:instead\s+of|in\s+place\s+of|rather\s+than)\s+(?P<old>[^,]+?)\W*$", re.IGNORECASE
)
# The file's own labels, not those that are given here.
BY_AUTHORS = re.compile(
    r"\bauthors?'?s?\b|\b(?:originally|published|according\s+to\s+the\s+(?:file|paper|metadata)|in\s+the\s+(?:paper|original)"
    r"|(?:the\s+)?file'?s\s+own|(?:my|our|their)\s+(?:own\s+)?(?:labels?|annotations?)|same\s+column|according\s+to\s+the\s+\w+\s+column"
    r"|came\s+with\s+the\s+file"
    r"|(?:called|named|labell?ed|annotated)\s+(?:as\s+)?[\w -]+\s+in\s+(?:the|my|this)\s+(?:file|data|column))\b",
    re.IGNORECASE,
)
# Undo of a choice, unless all cells are named: "bring them back".
BRINGS_BACK = re.compile(
    r"\b(?:bring|put|take|add|get|want|give\s+me|let)\s+(?:them|those|these|it|the\s+\w+(?:\s+cells)?)\s+(?:back|in\s+again)\b",
    re.IGNORECASE,
)
IT = re.compile(
    r"\b(?:it|its|this\s+(?:gene|drug|one|compound)|that\s+(?:gene|drug|one|compound)|the\s+(?:gene|drug))\b", re.I
)
MOST_OF_IT = re.compile(
    r"\b(?:most|least|highest|lowest|strongest|more|less|higher|lower)\b.*\b(?:of\s+it|it|express\w*|levels?|of\s+that)\b|\bexpress\w*\b.*\bit\b",
    re.IGNORECASE,
)
ACTS = re.compile(
    r"\b(?:sensitiv\w*|resist\w*|respon[ds]\w*|react\w*|hits?|hitting|kills?|killing|works?|working|spares?|harm\w*|effect\w*"
    r"|affect\w*|suffer\w*|toler\w*|surviv\w*|vulnerab\w*|treat\w*|target\w*|susceptib\w*)\b",
    re.IGNORECASE,
)
BOTH = re.compile(
    r"\b(?:both(?:\s+(?:groups|of\s+them|types|populations))?|(?:which|one)\s+of\s+(?:the|these|those)\s+(?:2|two|3|three)|of\s+each(?=\s+(?:are|is|do|does|have|with|kind|type|one)\b|\W*$)"
    r"|(?:the|these|those)\s+(?:2|two|3|three)(?!\s*\d)(?:\s+(?:groups|types|populations|clusters))?|either(?:\s+group)?|each\s+of\s+them)\b",
    re.IGNORECASE,
)
DOUBT = re.compile(
    r"\b(?:(?:don'?t|do\s+not|doesn'?t|does\s+not|can'?t|cannot|hardly)\s+(?:\w+\s+)?(?:believe|buy|trust|agree|think\s+so)"
    r"|not\s+(?:convinced|sure\s+(?:about|of)\s+(?:that|this|it))|doubt(?!ful|s?\s+(?:cells|ones|calls))|convinc\w+|insists?|prove|justify|evidence\s+(?:for|that)"
    r"|(?:are\s+)?you\s+(?:really\s+|quite\s+|so\s+)?(?:sure|certain|confident)(?=\W*$|\s)(?!\s*(?:ones|cells))|^\W*(?:really|seriously)\W*$|how\s+(?:do|did|can)\s+you\s+(?:know|tell|decide|call)"
    r"|(?:you\s+)?(?:decided?|called|labell?ed|think|believe|concluded?)\s+(?:that\s+)?(?:they|these|those|it|this|them)\s+(?:are|is|were|so)?"
    r"|(?:they|these|those|it|this|that|cells?)\s+(?:should|must|ought\s+to|might|may|could)\s+(?:rather\s+|really\s+|all\s+|well\s+)?be|looks?\s+(?:more\s+)?like\s+\w+(?:\s+cells?)?\s+to\s+me)",
    re.IGNORECASE,
)
CHALLENGES = re.compile(
    r"\b(?:(?:should(?!\s+(?:i\s+)?like\b)|must|might|could)(?:n'?t)?|ought|may(?!\s+(?:know|recall|remember|have\s+(?:seen|heard)))|insists?|argues?|rather|instead|more\s+like|to\s+me|(?:any|a)\s+chance"
    r"|possible|possibly|would\s+(?:have|say))\b",
    re.IGNORECASE,
)
SETTLED = re.compile(r"\b(?:umap|map|clusters?)\b", re.IGNORECASE)
DRUG_KNOWLEDGE = re.compile(
    r"\b(?:which|what)\s+(?:\S+\s+){0,3}(?:drugs?|compounds?|inhibitors?|medicines?)\s+(?:do|can|could)\s+(?:you|i)\b"
    r"|\b(?:what|which)\s+(?:is|are|does|do)?\s*(?:the\s+)?(?:\S+\s+){0,2}targets?\b(?!\s+(?:these|those|them|cells?|this|cluster))|\btargets?\s+of\b|\bmechanism\b|\bmode\s+of\s+action\b"
    r"|\b(?:how|are)\b.*\b(?:reliable|accurate|good|trustworthy|certain|sure|valid\w*)\b.*\b(?:drugs?|predict\w*|respon\w*)\b"
    r"|\bhow\s+(?:was|were|is|are|do|did|much)\b.*\b(?:predict\w*|drug)\b.*\b(?:trained|made|learn\w*|work|get|validated|tested|trust)\b"
    r"|\b(?:trained|validated|learned|tested)\b.*\b(?:predict\w*|drugs?)\b|\b(?:predict\w*|drugs?)\b.*\b(?:trained|validated|learned)\b"
    r"|\b(?:how|what)\s+(?:many|kinds?\s+of|sorts?\s+of|other)\s+drugs?\b|\b(?:list|name)\s+(?:of\s+)?(?:all\s+)?(?:the\s+|your\s+)?(?:known\s+)?drugs\b"
    r"|\bdrugs?\b.*\b(?:in\s+your|you\s+know|do\s+you\s+have|have\s+you\s+got|on\s+offer)\b"
    r"|\b(?:do|does)\s+you\s+know\s+(?:any|some|an?|other)\b.*\b(?:drugs?|inhibitors?|compounds?)\b|\bany\s+\S+\s+inhibitors?\b",
    re.IGNORECASE,
)
ONE = re.compile(  # pseudo-cell; "the one with most counts" is no number
    r"(?<!the )(?<!this )(?<!that )(?<!which )\b(?:one|an?\s+(?:single|lone|solitary))\b"
    r"(?!\s+(?:of|with|that|who|which|more\s+time|word|sentence|answer|line)\b)",
    re.IGNORECASE,
)
AN_INHIBITOR = re.compile(r"\ban?\s+\S+\s+inhibitor\b", re.IGNORECASE)  # which, behind a drug's name, says what it is
TARGET_CLASS = re.compile(
    r"\b([A-Za-z][\w-]*)(?:[\s-]+(?:directed|targeting|targeted))?[\s-]+(?:inhibitors?|blockers?|antagonists?)\b",
    re.IGNORECASE,
)
TRIES = re.compile(
    r"\b(?:what|anything|something|which|how)\b.*\b(?:try|use|give|treat|throw|recommend|suggest|hit|kill|target|spares?|help|act|work)\w*\b"
    r"|\b(?:best|top|good)\s+(?:drugs?|treatments?|compounds?|candidates?|therap\w+)\b",
    re.IGNORECASE,
)
COMPOSITION = re.compile(
    r"\b(?:composition|distributed|proportions?|break\s?down|distribution|make-?up|frequenc(?:y|ies)|abundances?)\b|\bcells?\s+(?:per|in\s+each|for\s+each|by)\b",
    re.IGNORECASE,
)
HOW_MANY_CLUSTERS = re.compile(r"\b(?:how\s+many|number\s+of)\s+(?:\w+\s+)?clusters\b", re.IGNORECASE)
WHICH_GROUP_HAS = re.compile(
    r"\b(?:which|what|in\s+which)\s+(?:\w+\s+)?(?:clusters?|groups?|conditions?|donors?|samples?|patients?|treatments?|batch(?:es)?|mouse|mice|weeks?|days?|animals?|arms?"
    r"|ages?|runs?|time\s?points?|genotypes?)\b"
    r".*\b(?:has|have|hold\w*|contain\w*|are|is|most|more|where|with|sit)\b",
    re.IGNORECASE,
)
LEFT = re.compile(r"\b(?:left|remain\w*|are\s+there|is\s+that|in\s+(?:total|here|all)|altogether)\b", re.IGNORECASE)
NOT_OF_TYPE = re.compile(r"\b(?:not|n't|non|no|other\s+than|except|besides)\b", re.IGNORECASE)
ANY_GOOD = re.compile(
    r"\b(?:any\s+good|(?:how|are\s+they|do\s+they|would\s+(?:they|those))\b.*\b(?:good|realistic|real|convincing|believable|close|similar|pass|trust\w*|hold\s+up))\b",
    re.IGNORECASE,
)
LACKS = re.compile(
    r"\b(?:do(?:es)?\s+not|don'?t|doesn'?t|not|without|lack\w*|negative|no)\b(?!\s+more)|\w-(?=\s|$)", re.IGNORECASE
)
VERSUS = re.compile(r"\b(?:versus|vs|against|compared\s+(?:to|with))\b", re.IGNORECASE)
TWO_CLUSTERS = re.compile(r"\bclusters?\s+#?\d+\b.*\bclusters?\s+#?\d+\b", re.IGNORECASE)
AGAINST = re.compile(r"\b(?:from|with|to|than|against|versus|vs)\b", re.IGNORECASE)
SPLIT_BETWEEN = re.compile(r"\bthan\b|\bbetween\b|\bversus\b|\bvs\b", re.IGNORECASE)
TOP_GENES = re.compile(
    r"\b(?:top|marker|defining|characteristic|signature|specific|up(?:-?regulated)?)\s+(?:\d+\s+)?(?:marker\s+)?genes?\b|\bmarkers?\s+(?:of|for|in)\b|\bgenes?\b.*\bup\b",
    re.IGNORECASE,
)
POINTS_HERE = re.compile(
    r"\b(?:these|this (?:group|selection|cell|population|subset|subpopulation|lot|bunch|compartment|fraction|set)"
    r"|the (?:selected|chosen|selection)|my selection)\b",
    re.IGNORECASE,
)
EVERYTHING = re.compile(
    r"\b(?:put\s+.*\bback(?=\s*(?:in\b|[.?!]*$))|(?:bring|add)\s+.*\bback\b|back\s+to\s+(?:all|everything)|(?:for|on|in|with|to|of)\s+(?:everything|all)(?=\s*[.?!]*$)"
    r"|all (?:of )?(?:the |my |these )?(?:\d[\d,]* )?cells|every cell|(?:whole|entire|full|complete) (?:file|set"
    r"|object|lot|thing"
    r"|data\s?set|sample|data)(?: of cells)?|back\s+to\s+every(?:one|body)|all\s+\w+s\s+(?:again|together)|all data)\b"
    r"(?!\s+(?:but|except|called|of|in|that|which|with|where))",
    re.IGNORECASE,
)
UNSURE_WORDS = re.compile(
    r"\b(?:unsure|uncertain|doubtful|ambiguous|unclear|dubious|shaky|questionable|borderline|low[- ]confidence"
    r"|not\s+(?:so\s+|very\s+|really\s+)?(?:sure|certain|confident)|weak(?:ly)?\s+(?:called|ones"
    r"|calls?|cells)|least\s+(?:sure|certain|confident)"
    r"|weak\s+(?:calls?|ones))\b",
    re.IGNORECASE,
)
SURE_WORDS = re.compile(
    r"\b(?:(?:confident(?:ly\s+called)?|high[- ]confidence)\s+(?=(?:\S+\s+){1,3}cells?\b)"
    r"|(?:confident|sure|certain|high[- ]confidence|reliable|safe)\s+(?:ones|cells|calls|labels)"
    r"|(?:most|very)\s+(?:confident|sure|certain)|(?:ones|what|those|where|which)\s+you(?:\s+are|'re)\s+(?:sure|certain|confident))\b",
    re.IGNORECASE,
)
LIMIT = r"(0?\.\d+|1\.0|\d{1,3}\s*(?:%|percent))"
BELOW = re.compile(
    rf"\b(?:confidence|probability|sure|certain)\b\W*(?:is\s+|of\s+)?(?:below|under|less\s+than"
    rf"|lower\s+than|smaller\s+than|<)\s*{LIMIT}"
    rf"|\b(?:below|under|less\s+than|lower\s+than)\s*{LIMIT}\s*(?:sure|certain|confiden\w+|probab\w+)",
    re.IGNORECASE,
)
ABOVE = re.compile(
    rf"\b(?:confidence|probability|sure|certain)\b\W*(?:is\s+|of\s+)?(?:above|over|more\s+than"
    rf"|higher\s+than|at\s+least|greater\s+than|>=?)\s*{LIMIT}",
    re.IGNORECASE,
)
UNKNOWN = re.compile(r"\bunknowns?\b(?!\s+gene)", re.IGNORECASE)
RESPONSE = re.compile(
    r"(?<!\bmore )(?<!\bmost )(?<!\bless )(?<!\bleast )\b(resistant|sensitive|non-?responding|responding)\s+"
    r"(?:ones?|cells?|population|group|fraction|subset|part)\b|\b(?:the|only|just)\s+(resistant|sensitive)\b(?!\s+to)",
    re.IGNORECASE,
)
WHO_RESPONDS = re.compile(
    r"\b(?:which|what)\s+(?:of\s+(?:them|these|those)|cells|ones)\s+(?:do\s+|are\s+|would\s+|will\s+|is\s+)?(?:be\s+|\w+ly\s+)?"
    r"(resist\w*|respond\w*|sensitive)\b(?!\s+to\b)",
    re.IGNORECASE,
)
EXCEPT = re.compile(
    r"\b(?:except(?:\s+for)?|excluding|other\s+than|apart\s+from|besides|(?:all|everything|everyone)\s+but|but\s+not|without\s+the)\b",
    re.IGNORECASE,
)
ONLY_IN = re.compile(
    r"\b(?:only|just)\s+(?:in|on|for|with|among|within|inside)\b|\b(?:in|on|for|among|within|of)\b.*\b(?:alone|only|by\s+themselves)\W*$",
    re.IGNORECASE,
)
WHOLE_FILE = re.compile(
    r"\b(?:(?:my|the|this|our|your)\s+(?:(?:whole|entire|full|loaded|uploaded)\s+)?(?:files?|data\s?sets?|data|samples?|experiment|upload)"
    r"|overall|in\s+total|altogether)\b",
    re.IGNORECASE,
)
VERSE = re.compile(r"\b(?:haiku|poem|joke|limerick|song|sonnet|story|rap)\b", re.IGNORECASE)
IN_EVERYTHING = re.compile(
    r"\b(?:in|on|over|for|of|across|with|to)\s+(?:everything(?:\s+in\s+(?:here|it|there))?|all(?:\s+(?:of\s+them|the\s+cells|cells))?|every\s+cell|the\s+(?:whole|entire)\s+\w+)\W*$",
    re.IGNORECASE,
)
WHICH_ARE = re.compile(
    r"^\W*(?:and\s+)?(?:which|what)\s+(?:of\s+(?:the|my|these|those)\s+)?cells\s+(?:here\s+)?are\b", re.IGNORECASE
)
THERE = re.compile(r"\b(?:are\s+there|do\s+(?:i|we)\s+have|in\s+(?:here|my|the|this))\b", re.IGNORECASE)
HOW_SURE = re.compile(
    r"\b(?:mean|average|median)\s+confidence\b|\bhow\s+(?:confident|sure|certain)\s+(?:are\s+you|is)\b", re.IGNORECASE
)
OF_CELLS = re.compile(
    r"^\W*(?:(?:and|so|but|what\s+about|how\s+about|any|are\s+there(?:\s+any)?|how\s+many)\s+)+"
    r"((?:[A-Za-z][\w-]+\s+){0,1}[A-Za-z][\w-]+)\s+cells?\b(?:\s+(?:are\s+there|do\s+i\s+have|here|in\s+here))?\W*$",
    re.IGNORECASE,
)
# What single-cell counts and the tables here do not tell, and what is no question about cells.
NOT_READ = re.compile(
    r"\b(?:scvelo|cellrank|monocle\d?|slingshot|harmony|cellchat|cellphonedb|infercnv|gsea|enrichr|mutat\w+"
    r"|variants?|SNPs?|copy[- ]number|CNVs?|methylation|velocity"
    r"|trajector\w+|pseudo-?time|spatial\w*|splic\w+|clonotypes?|karyotype"
    r"|TCRs?|BCRs?"
    r"|batch[- ](?:effects?|correct\w*)|integrate\s+(?:the|my)|imput(?:e|ation)|fastq|ATAC"
    r"|survival|translate\s+.*\b(?:into|to)\b)\b",
    re.IGNORECASE,
)
OF_COLUMN = re.compile(
    r"\b(?:which|what)\s+columns?\b|\bcolumns?\b.*\b(?:contain\w*|say|says|hold\w*|mean\w*|values?)\b|\bwhat\s+is\s+in\s+the\s+.*\bcolumn\b",
    re.IGNORECASE,
)
EMBEDS = re.compile(
    r"^\W*(?:(?:please|now|then|and|can you|could you)\W+)*(?:(?:embed|encode)\b|(?:compute|calculate|get"
    r"|give\s+me|make)\s+"
    r"(?:your\s+|the\s+|an?\s+)?embeddings?\b)|\bembedding\s+(?:vectors?|matrix|coordinates)\b"
    r"|\b(?:compute|calculate|store|save)\s+(?:(?:your|the|an?|model'?s?|latent|cell|your\s+own)\s+)*embeddings?\b",
    re.IGNORECASE,
)
ENCODER_WORDS = {  # of a request to embed; the first that is named
    "fusion": re.compile(r"\b(?:fusion|fused|scMPT)\b|\bboth\b", re.IGNORECASE),
    "gene_text": re.compile(r"\bgene[- ]?(?:texts?|descriptions?|summar(?:y|ies))\b|\bGenePT(?:-w)?\b", re.IGNORECASE),
    "sentence": re.compile(r"\bsentences?\b|\bCELLama\b", re.IGNORECASE),
}
OF_ENCODERS = re.compile(  # "which encoder saw what?", not "what is an encoder?"
    r"\b(?:which|what)\s+(?:\w+\s+)?(?:encoder|encoders|embeddings)\b"
    r"|\b(?:encoder|encoders)\s+(?:saw|see|seen|read|used)\b",
    re.IGNORECASE,
)
RESTORES = re.compile(
    r"^\W*(?:(?:please|now|ok|and)\W+)*(?:put|bring|add)\b.*\bback\b|\b(?:back|return)\s+to\s+(?:all|every(?:thing|one|body)|(?:the\s+|my\s+)?(?:full|whole|entire|complete)\b)",
    re.IGNORECASE,
)
PRESENCE = re.compile(
    r"^\W*(?:(?:and|so|but)\s+)?(?:(?:are|is)\s+there|any|does\s+\w+(?:\s+\w+)?\s+(?:have|contain|hold)"
    r"|have\s+(?:i|we|you)\s+(?:got|found))\b|\bdo\s+(?:i|we|you)\s+(?:\w+\s+)?(?:have|see|find)\b",
    re.IGNORECASE,
)
AGREES = re.compile(
    r"\b(?:(?:dis)?agree\w*|(?:go(?:es)?|fits?|lines?)\s+(?:along|up|together)|correspond\w*|crosstab\w*|match(?:es)?|consistent|concordan\w*|in\s+line)\b",
    re.IGNORECASE,
)
OWN_LABELS = re.compile(
    r"\b(?:authors?'?|original|published|given|file'?s?|existing|provided)\s+(?:own\s+)?(?:cell\s+)?(?:labels?|annotations?|types?)\b",
    re.IGNORECASE,
)
AMONG_GENES = re.compile(
    r"\b(?:among|one\s+of|part\s+of|in\s+(?:the|that|this)\s+list|on\s+the\s+list|differ\w*|significant\w*|higher|lower|up|down)\b",
    re.IGNORECASE,
)
INJECTION = re.compile(
    r"\b(?:ignore|forget|disregard|override)\s+(?:all\s+|any\s+|your\s+|the\s+|my\s+)*(?:previous\s+|prior\s+|earlier\s+)?(?:instructions?|rules|prompts?|guidelines)\b"
    r"|\bpretend\s+(?:to\s+be|you|that\s+you)\b|\bact\s+as\s+(?:if|an?)\b|\bsystem\s+prompt\b|\byou\s+are\s+now\b",
    re.IGNORECASE,
)
LABELS_THEM = re.compile(r"^\W*(?:(?:please|now|can\s+you|could\s+you)\s+)*(?:annotate|label)\b", re.IGNORECASE)
NO_DRUG_WORDS = re.compile(
    r"\b(?:genes?|markers?|antibod\w+|stain\w*|plots?|columns?|files?|panels?|reagents?)\b", re.IGNORECASE
)
WHICH_GENES = re.compile(r"\b(?:which|what)\s+(?:\w+\s+)?(?:genes?|markers?)\b", re.IGNORECASE)
OTHERS = re.compile(
    r"\b(?:all|everything|every cell|the cells|anything|cells)\s+(?:but|except(?:\s+for)?|other\s+than|besides)\b"
    r"|\b(?:not|without|exclude|excluding|drop|remove|lacking|ignore|discard|omit|eliminate|throw\s+out|kick\s+out|leave\s+out"
    r"|filter\s+out|toss(?:\s+out)?|weed\s+out|get\s+rid\s+of)\s+(?:the\s+)?(?=\w)|\bdo(?:n't|\s+not)\b"
    r"|\b(?:kick|leave|filter|toss|throw|weed|sort)\s+(?:[\w+-]+\s+){1,4}?out\b",
    re.IGNORECASE,
)
THE_OTHERS = re.compile(
    r"\b(?:everything\s+else|anything\s+else|the\s+(?:others?|rest|remaining\s+(?:ones|cells))|all\s+(?:the\s+)?others?(?:\s+cells)?"
    r"|(?:the\s+)?other\s+cells)\b",
    re.IGNORECASE,
)
LIKE = re.compile(
    r"\b(?:like|similar\s+to|resembl\w+)\s+(?:these|those|them|the\s+(?:selected|chosen|unsure|ones)"
    r"|cluster|my|this|that)\b|\blook-?alikes?\b|\bmore\s+of\s+(?:these|those|them)\b|\bsame\s+kind\b",
    re.IGNORECASE,
)
ON_MAP = re.compile(
    r"\b(?:put|show|place|overlay|overlaid|plot|draw|project|lay|add|see|display|paint|visuali[sz]e"
    r"|where)\b.*\b(?:map|umap|plot|embedding|over\s+(?:my|the|real)|on\s+(?:my|top))\b"
    r"|\bon\s+(?:the|a|my)\s+(?:map|umap)\b|\boverlay\b",
    re.IGNORECASE,
)
WHY = re.compile(
    r"^\W*(?:(?:and|but|ok|so|hm+)\W+)*(?:why|how\s+come|what\s+makes\s+you|on\s+what\s+(?:grounds|basis)"
    r"|based\s+on\s+what|what\s+speaks\s+(?:for|against)|tell\s+me\s+why|explain\s+(?:why|how|that|this|the\s+(?:label|call)))\b|\bon\s+the\s+basis\s+of\s+(?:which|what)\b"
    r"|\bwhat\s+gives\s+(?:them|it|these|those)\s+away\b",
    re.IGNORECASE,
)
WHY_NOT = re.compile(
    r"\bwhy\b.*(?:\bnot\b|n't\b|\brather\s+than\b|\binstead\s+of\b)|\bwhy\s+(?:are\s+|is\s+)?(?:they|these|those|it|this|that)?\s*(?:not|aren'?t|isn'?t)\b"
    r"|\bspeaks?\s+(?:for|in\s+favou?r\s+of)\b.*\binstead\b|\bwhat\s+about\b.*\binstead\b"
    r"|\bnot\b.{0,12}\binstead\b|\bcould(?:n'?t)?\b.*\b(?:they|these|those|it|this)\b.*\bbe\b|\bspeaks?\s+"
    r"against\b|\bsure\b.*\bnot\b",
    re.IGNORECASE,
)
COLOURED = re.compile(
    r"\b(?:re)?colou?r(?:ed|ing)?\s+(?:them\s+|it\s+|cells\s+)?(?:by|with|after|for|according)\b", re.I
)
MAP_OF = re.compile(
    r"^\W*(?:(?:and|now|ok|please|then|a|the|another|new)\W+)*(?:umap|tsne|map|embedding)\s+(?:of|for|with|by)\b",
    re.IGNORECASE,
)
DISTRIBUTION = re.compile(
    r"\b(?:violins?|box|ridge|strip|swarm|bar|dot)\s?-?(?:plots?|charts?)\b|\bviolins?\b", re.IGNORECASE
)
EVIDENCE = re.compile(  # "any contradicting genes?"
    r"\b(?:contradicting|contradictory|confirming|supporting|opposing)\s+(?:genes?|evidence|markers?)\b"
    r"|\bgenes?\b.{0,20}\b(?:contradicts?|contradicting|speak\w*\s+against|argue\s+against)\b",
    re.IGNORECASE,
)
KEPT_FROM_NOW = re.compile(r"\b(?:from\s+(?:now|here)\s+on|from\s+this\s+point|henceforth)\b", re.IGNORECASE)
IN_HOW_MANY = re.compile(
    r"^\W*(?:(?:and|so|but|ok)\W+)*in\s+(?:how\s+many|what\s+(?:fraction|share|percentage|proportion|part))\b",
    re.IGNORECASE,
)
# "Is the number of beta cells changed?", of a type and groups.
ABUNDANCE = re.compile(
    r"\b(?:expand\w*|shrink\w*|shrunk|abundan\w*|enriched|depleted|lost|los(?:e|es|ing)|gain\w*|drop(?:s|ped)?|driv\w+|shift\w*"
    r"|(?:more|fewer|less)\s+(?=\w))",
    re.IGNORECASE,
)
WORSE = re.compile(r"\b(?:worse|better|dirtier|cleaner|poorer|bad|good)\b", re.IGNORECASE)
ASKS_DRUG = re.compile(r"^\W*(?:which|what)\b.*\b(?:drugs?|compounds?|inhibitors?)\b", re.IGNORECASE)
TEXTBOOK = re.compile(
    r"\b(?:textbooks?|literature|canonical|classical?|published|in\s+general|generally|usually|typical(?:ly)?|known|should\s+they|databases?)\b",
    re.IGNORECASE,
)
CHART = re.compile(r"\b(?:(?:bar|pie|stacked)[\s-]*(?:charts?|plots?|graphs?)|bars?|pie|charts?)\b", re.IGNORECASE)
SPECIES = re.compile(
    r"\b(?:what|which)\s+(?:species|organism)\b|\bis\s+(?:this|it)\s+(?:from\s+)?(?:human|mouse|murine)\b",
    re.IGNORECASE,
)
OF_TYPES = re.compile(
    r"\b(?:cell\s*)?types?\b|\bcompositions?\b|\bproportions?\b|\bfractions?\b|\bcells\b", re.IGNORECASE
)
NOT_THAT = re.compile(r"^\W*(?:(?:and|but|so|ok)\W+)*(?:why\s+)?not\b", re.IGNORECASE)
SELECTED = re.compile(r"\b(?:cells?\s+)?(?:selected|chosen|picked|kept)\W*$", re.IGNORECASE)
# Any word for a group, where the file has one grouping only: "how many cells in each arm".
ANY_GROUP = frozenset(
    "arm condition group treatment sample donor patient timepoint genotype batch status half halve week day age animal "
    "run".split()
)
ALL_NOW = re.compile(
    r"^\W*(?:(?:and|now|ok|okay|fine|fast|good|then|so|do)\W+)*(?:all(?:\s+(?:of\s+them|cells|the\s+cells))?|everything)\W*$",
    re.IGNORECASE,
)
ANY_OF_IT = re.compile(
    r"^\W*(?:(?:and|so|but|ok)\W+)*(?:do|have|are|is|did)\s+(?:(?:we|i|you|there|my|cells)\s+)*(?:have\s+|see\s+|got\s+|find\s+)?(?:any|some|many)"
    r"(?:\s+(?:of\s+(?:them|those|these)|here|in\s+here|at\s+all))*\W*$",
    re.IGNORECASE,
)
WHAT_IS_IT = re.compile(
    r"\bdo(?:es)?\s+\S+\s+(?:do|play)\b|\bwhat(?:'s|\s+is|\s+are|\s+does|\s+do)\b|\bwhats\b", re.IGNORECASE
)
PLOTS = re.compile(r"\b(?:violins?|dot\s?plots?|box\s?plots?|plots?|heat\s?maps?)\b", re.IGNORECASE)
CLUSTERING = re.compile(r"\b(?:clustering|leiden|louvain)\b", re.IGNORECASE)
OURS = re.compile(r"\b(?:yours?|mine|theirs?|authors?'?|my|labels?|calls?|annotations?)\b", re.IGNORECASE)
ALSO = re.compile(r"\b(?:also|too|as\s+well|what\s+about|how\s+about|and)\b", re.IGNORECASE)
CAUGHT = re.compile(
    r"\bwhat\s+(?:have|did)\s+(?:we|i|you|they)\s+(?:all\s+)?(?:catch|caught|ended?\s+up\s+with|got(?:ten)?\s+(?:here|in\s+(?:here|there|it)))\b"
    r"|\bwho(?:'s|\s+is|\s+are|\s+all\s+is)\s+(?:all\s+)?in\s+(?:here|there)\b",
    re.IGNORECASE,
)
GOES_ON_WITH = re.compile(
    r"^\W*(?:(?:hm+|and|but|ok|now|then|so)\W+)*(?:in|for|on|with|what\s+about|how\s+about|only|same)\b", re.I
)
HANDS_OUT = re.compile(
    r"^\W*(?:(?:please|now|and|then|ok|can\s+you|could\s+you)\W+)*(?:export|download|hand\s+(?:me\s+)?(?:over|out))\b"
    r"|\bgive\s+me\s+(?:that|the|a)\s+(?:script|zip|csv|files?)\b",
    re.IGNORECASE,
)
WHO_HAS_MOST = re.compile(
    r"^\W*(?:(?:and|so|ok)\W+)*(?:who|which(?:\s+one)?|where)\b.*\b(?:most|least|more|fewest|fewer)\b", re.I
)
POSITIVE_ONES = re.compile(r"\b(?P<sign>positive|negative)\s+(?:ones?|cells?|guys)\b", re.IGNORECASE)
THANKS = re.compile(r"\b(?:th(?:a?n)?(?:k|x|ks)\w*|thx|ty|cheers|merci|danke|appreciate\w*)\b", re.IGNORECASE)
FAREWELL = re.compile(
    r"\b(?:bye|goodbye|see\s+you|good\s+night|that'?s\s+(?:all|it)(?:\s+for\s+(?:now|today))?|done\s+for\s+today)\b",
    re.I,
)
WHO_ARE_YOU = re.compile(
    r"\bwho\s+(?:are\s+you|am\s+i\s+(?:talking|speaking|chatting)\s+(?:to|with))\b|\bwhat(?:'s|\s+is)\s+your\s+name\b|\bare\s+you\s+(?:an?\s+)?"
    r"(?:human|robot|bot|ai|person|chatgpt|machine)\b",
    re.IGNORECASE,
)
GIVES_AWAY = re.compile(r"\bwhat\s+gives\s+an?\s+.+\baway\b", re.IGNORECASE)  # a type by its markers
BY_EACH = re.compile(r"\b(?:by|per|across|each|every)\b", re.IGNORECASE)
THEY_HAVE = re.compile(r"\b(?:have|has|express\w*|carry|carries|make|makes|positive|show)\b", re.IGNORECASE)
SUCH_CELLS = re.compile(
    r"\bsuch\s+(?:an?\s+)?cells?\b|\bcells?\s+(?:of|like)\s+(?:that|this)(?:\s+(?:type|kind|sort))?\b", re.I
)
FINER = re.compile(
    r"^\W*(?:(?:a|bit|little|much|even|still|go|make|cluster|it|them|ok|and|now|please|can|you|that'?s|too|crude|coarse)\W+)*"
    r"(?:finer|coarser)(?:\s+(?:please|clusters?|clustering|groups?|resolution|grained))*\W*$",
    re.IGNORECASE,
)
OPEN_FILES = re.compile(
    r"\b(?:which|what)\s+(?:\w+\s+)?(?:files?|data\s?sets?|objects?)\s+(?:do\s+(?:you|i|we)\s+have|have\s+(?:you|i|we)|did\s+i|are\s+(?:there|open"
    r"|loaded|in\s+here|here))\b"
    r"|\b(?:files|data\s?sets)\b\W+(?:which|what)\s+(?:ones\s+)?are\s+they\b",
    re.IGNORECASE,
)
SPARES = re.compile(
    r"\b(?:spar(?:e|es|ing)|without\s+(?:harming|killing|hurting|hitting)|not\s+(?:harm|kill|hurt|hit))\b", re.I
)
MORE_OF = re.compile(r"\bmore\s+of\s+(?:them|those|these|the\s+same|that\s+(?:kind|type|sort))\b", re.IGNORECASE)
BUT_NOT = re.compile(
    r"\b(?:that|which)\s+.+\b(?:don'?t|do\s+not|doesn'?t|does\s+not|lack|lacks|haven'?t)\b|\bbut\s+not\b", re.IGNORECASE
)
GOES_ON = re.compile(  # a comparison with what was talked of: "versus the ductal cells", "compared only with group 0"
    r"^\W*(?:(?:and|but|so|now|then|ok(?:ay)?|what\s+about|how\s+about)\W+)*(?:(?:if\s+)?compared?\s+(?:(?:only|it|them|that|this"
    r"|those|these)\s+)*(?:to|with|against)|versus|vs|against)\b",
    re.IGNORECASE,
)
EXPRESSES = re.compile(
    r"\b(?:that|which|who|and)\s+(?:all\s+|also\s+)?(?:express(?:es)?|have|has|contain)\b"
    r"|\bexpressing\b|\bpositive\s+for\b|-positive\b|\bpositive\b|\w\+(?=\s|$)|\bwith\s+(?=[A-Z])",
    re.IGNORECASE,
)
WHICH_EXPRESS = re.compile(
    r"\b(?:which|what|how\s+many|any|the)\s+(?:of\s+(?:the|my|these|those)\s+)?(?:cells?|ones)\b.*"
    r"(?:\b(?:express\w*|have|has|had|contain\w*|with|show|positive)\b|\w\+(?=\s|$))",
    re.IGNORECASE,
)
SENSITIVE = re.compile(r"\b(?:sensitiv\w*|resist\w*|respon[ds]\w*|kill\w*)\b", re.IGNORECASE)
AMOUNT = re.compile(
    r"\bexpress\w*|\blevels?\b|\bpositive\b|\bcounts?\s+of\b|\bplot\b|\bdot\s?plot\b|\bviolin\b"
    r"|\bhow\s+(?:much|strongly|high)\b|\bdetected\b|\bis\b.*\b(?:on|high|low|present|found)\b"
    r"|\w\+(?=\s|$)",
    re.IGNORECASE,
)
COMPARES = re.compile(
    r"\bcompar\w+|\bdifferen\w+|\bdiffer\b|\bversus\b|\bvs\b\.?|\bdistinguish\w*|\bcontrast\w*|\bseparates?\b|\bdiscriminat\w*"
    r"|\bDEGs?\b|\bDE\s+genes\b|\bsets?\b.*\bapart\b|\bspecial\s+about\b"
    r"|\bcharacteri[sz]es?\b|\b(?:up|down)-?\s?regulated\b|\bmore\s+(?:sensitive|resistant)\b"
    r"|\bchanged?\b|\bhigher\s+in\b|\bup\s+in\b|\bthan\b",
    re.IGNORECASE,
)
# Words that hold pseudo-cells against real ones, beside those of any comparison.
RESEMBLES = re.compile(
    r"\bresembl\w+|\blook\w*\s+like\b|\bmatch\w*|\b(?:close|similar|alike)\b|\bgood\b|\btell\b.*\bfrom\b",
    re.IGNORECASE,
)
REAL = re.compile(
    r"\b(?:real|measured|actual|original|true|my)\s+(?:[\w-]+\s+)?(?:ones?|cells?|data|counterparts?)\b"
    r"|\breal(?:istic|ism)?\b|\boriginals\b",
    re.IGNORECASE,
)
DRUGS = re.compile(r"\b(?:drugs?|compounds?|treatments?|inhibitors?|medicines?|therap(?:y|ies))\b", re.IGNORECASE)
# Questions about each of several groups: "which type responds best?"
EACH_GROUP = re.compile(
    r"\b(?:which|what)\s+(?:\w+\s+){0,2}?(?:types?|clusters?|groups?|conditions?|donors?|populations?|samples?)\b"
    r"|\b(?:each|every|per)\b(?!\s+(?:single\s+)?cell\b)",
    re.IGNORECASE,
)
WHICH_DRUG = re.compile(
    r"\b(?:which|what|any|best|rank|list|order|suggest|recommend|screen|try|test)\b.*\b(?:drugs?"
    r"|compounds?|treatments?|inhibitors?|medicines?|therap(?:y|ies))\b"
    r"|\bdrugs?\b.*\b(?:rank|best|most)\w*|\bwhat\b.*\b(?:sensitive|vulnerable)\s+to\b",
    re.IGNORECASE,
)
MAKES = re.compile(
    r"\b(?:generat|simulat|synthesi[sz]|fabricat|fak|conjur|invent|hallucinat|mock|pseudo|artificial"
    r"|synthetic|virtual|in[- ]silico|augment|upsampl|oversampl|lookalike)\w*"
    r"|\bmak(?:e|ing)\b(?!\s+(?:clusters|groups|sure|up\s+of))|\bcreat(?:e|ing)\b|\bproduc(?:e"
    r"|ing)\b(?=.*\bcells?\b)|\bcook\s+up\b|\bwhip\s+up\b|\bcome\s+up\s+with\b|\bmade[- ]up\b"
    r"|\bspawn\b|\bdream\s+up\b",
    re.IGNORECASE,
)
CHOOSES = re.compile(
    r"^\W*(?:(?:and|now|ok|okay|please|then|so|let'?s|let us|can you|could you|i want to|show me|show|give me)\W+)*"
    r"(?:only(?!\s+(?:name|annotate|label|tell|count|compare|plot|draw|predict)\b)|just(?!\s+(?:name|annotate|label|tell|give|count"
    r"|compare|plot|draw|generate|make|predict|list|run|do|show|got|a|an|to|wonder\w*|curious|check\w*|received|ask\w*|so|had|did|back|out)\b)|select|keep|choose|fetch|grab|isolate|extract|pull\s+out|(?:pick|take)(?:\s+out)?|filter|restrict|limit|narrow|subset|focus|zoom"
    r"|take|highlight|look\s+only|continue\s+with|work\s+with|everything\s+(?:but|except)|all\s+(?:but"
    r"|except)|drop|exclude|remove|ignore|discard|omit|eliminate|throw\s+out|get\s+rid\s+of|kick|leave\s+out|toss|weed\s+out)\b",
    re.IGNORECASE,
)
SHOWS_CELLS = re.compile(
    r"^\W*(?:(?:and|now|ok|please)\W+)*(?:show(?:\s+me)?|which|what|list|find|where|give\s+me)\b", re.IGNORECASE
)
COUNTS = re.compile(
    r"\b(?:how\s+many|what\s+(?:fraction|share|percentage|proportion|part)|number\s+of|count"
    r"|percentage\s+of|fraction\s+of|share\s+of)\b",
    re.IGNORECASE,
)
BY = re.compile(
    r"\b(?:by|per|across|between|among|over|colou?red\s+by|(?:for|in|of|from)\s+(?:each|every)(?:\s+of)?|with|each(?:\s+of)?|every"
    r"|in\s+(?:one|any|either|both|some)(?:\s+of)?)\s+(?:the\s+|all\s+|both\s+|\d+\s+|two\s+|my\s+|different\s+|single\s+|remaining\s+|other\s+)*([A-Za-z][\w-]*(?:\s+[A-Za-z][\w-]*)?)",
    re.IGNORECASE,
)
# "The two diets", "both batches", "see the column patient".
OF_SEVERAL = re.compile(
    r"\b(?:both|\d+|two|three)\s+(?:of\s+(?:the|my|our)\s+)?(?:\w+\s+)?([A-Za-z_]\w*s)\b"
    r"|\bcolumn\s+(?:called\s+|named\s+|is\s+)?[\"'`]?([A-Za-z_]\w*)|\b(?!the\b|an?\b|this\b|that\b|which\b|one\b)([A-Za-z_]\w*)[\"'`]?\s+column\b",
    re.IGNORECASE,
)
RESOLUTION = re.compile(r"\bresolution\s*(?:of|=|:|at|to)?\s*(\d+(?:\.\d+)?)", re.IGNORECASE)
SPECIAL = re.compile(
    r"\bwhat\s+do\s+(?:they|these|those)\s+(?:\w+\s+)?express\b|\bdefin(?:es?|ing)\b|\bunique\s+(?:about|to)\b|\bspecial\s+about\b|\bsets?\b.*\bapart\b|\bcharacteri[sz]es?\b",
    re.IGNORECASE,
)
QUALITY = re.compile(r"\bQC\b|\bquality\s+(?:control|check|of)\b|\bdoublets?\b|\bmito(?:chondrial)?\b", re.IGNORECASE)
SPLITS = (
    re.compile(r"\bbetween\s+(?P<a>.+?)\s+(?:and|versus|vs\.?)\s+(?P<b>.+)$", re.IGNORECASE),
    re.compile(
        r"\b(?:compare|contrast|separate|distinguish(?:es)?)\s+(?P<a>.+?)\s+(?:with|to|against|and"
        r"|from|versus|vs\.?)\s+(?P<b>.+)$", re.IGNORECASE),
    re.compile(
        r"\b(?:more|better|less|worse|stronger|harder|higher|lower)\b(?:\s+\w+)?\s+(?:in|on|against|for)\s+(?P<a>.+?)"
        r"\s+than\s+(?:(?:in|on|against|for)\s+)?(?P<b>.+)$", re.IGNORECASE),
    re.compile(
        r"\b(?:do|does|did|are|is|hit|hits|kill)\s+(?P<a>.+?)\s+(?:differ(?:ent)?|more\s+\w+|more"
        r"|higher|better|less\s+\w+|less|stronger)\s+(?:from|than)\s+(?P<b>.+)$", re.IGNORECASE),
    re.compile(
        r"\b(?:up|higher|upregulated|up-regulated|down|lower|downregulated|different)\s+in\s+"
        r"(?P<a>.+?)\s+(?:compared\s+(?:to|with)|than\s+in|versus|vs\.?|against|relative\s+to)\s+"
        r"(?P<b>.+)$", re.IGNORECASE),
    re.compile(
        r"^(?:.*?\b(?:in|of|for|genes|test|on)\s+)?(?P<a>.+?)\s+(?:versus|vs\.?|against|compared\s+"
        r"(?:to|with))\s+(?P<b>.+)$", re.IGNORECASE),
)  # fmt: skip
FILES = r"(?:files?|data\s?sets?|uploads?|objects?|adatas?|anndatas?)"
CLOSES_FILE = re.compile(
    r"^\W*(?:(?:please|now|ok|can you|could you)\W+)*(?:(?:close|unload)\b|(?:forget|remove|drop|delete)\s+"
    rf"(?:(?!from\b|in\b|of\b)[\w.()-]+\s+){{0,4}}(?:{FILES}|\S+\.[a-z]\w{{1,5}})\W*$)",
    re.IGNORECASE,
)
CLOSES_THIS = re.compile(rf"\b(?:this|the|my|that)\s+(?:current\s+|loaded\s+)?{FILES}\b", re.IGNORECASE)
PLACES = {
    "first": 0, "1st": 0, "second": 1, "2nd": 1, "third": 2, "3rd": 2, "fourth": 3, "4th": 3, "fifth": 4, "5th": 4,
    "last": -1, "latest": -1, "newest": -1,
}  # fmt: skip
FILE_PLACE = re.compile(rf"\b({'|'.join(PLACES)}|other|previous)\s+(?:(?:up)?loaded\s+)?{FILES}\b", re.IGNORECASE)
FILE_NUMBER = re.compile(r"\bfile\s+(?:number\s+|no\.?\s*|#\s*)?(\d{1,2})\b(?!\s*(?:cells|genes))", re.IGNORECASE)
FILE_WORD = re.compile(
    rf"\b([a-z0-9]+(?:\s[a-z0-9]+)?)\s+{FILES}\b"
    r"|\b(?:switch|go|change)\s+(?:back\s+)?to\s+(?:the\s+|my\s+)?([a-z0-9]+)\b",
    re.IGNORECASE,
)
EVERYDAY = frozenset("the data cell cells count counts gene genes matrix sample samples file h5ad csv tsv all".split())
WHICH_FILE = re.compile(rf"\b(?:other|previous|another|next|(?:{'|'.join(PLACES)}))\s+{FILES}\b", re.IGNORECASE)
OF_LABELS = re.compile(
    r"(?<!geno)(?<!pheno)type|annot|label|class|ident|ontology|cluster|leiden|louvain", re.IGNORECASE
)
Parse = Callable[[str], Cells | None]


def find_cells(text: str, obs: pd.DataFrame | None, placed: Cells | None) -> Cells | None:
    """Conditions on the cells that the words state, cell types aside; `placed` is what positions and columns say."""
    given = {} if placed is None else placed.short()
    if match := BELOW.search(text):
        given["confidence_below"] = _limit(match[1] or match[2])
    elif match := ABOVE.search(text):
        given["confidence_above"] = _limit(match[1])
    elif UNSURE_WORDS.search(text):
        given["confidence_below"] = UNSURE
    elif SURE_WORDS.search(text):
        given["confidence_above"] = UNSURE
    if UNKNOWN.search(text) and "value" not in given:
        given["cell_type"] = "unknown"
    if match := RESPONSE.search(text) or WHO_RESPONDS.search(text):
        said = next(filter(None, match.groups())).lower()
        given["response"] = "resistant" if said.startswith(("resist", "non")) else "sensitive"
    return Cells(**given) if given else None


def find_group_again(text: str, groups: Sequence[Cells]) -> Cells | None:
    """One of the two groups compared before, by its number, or both: "the second group", "the latter"."""
    if len(groups) < 2:
        return None
    if re.search(r"\b(?:first\s+(?:group|one|population)|former|group\s+1)\b", text, re.IGNORECASE):
        return groups[0]
    if re.search(r"\b(?:second\s+(?:group|one|population)|latter|other\s+group|group\s+2)\b", text, re.IGNORECASE):
        return groups[1]
    return either(groups) if BOTH.search(text) else None


def either(groups: Sequence[Cells]) -> Cells | None:
    """The cells of two groups together; None where they differ in more than a type, a cluster or a value."""
    given = [group.short() for group in groups]
    if any(set(one) != set(given[0]) for one in given):
        return None
    differing = [name for name in given[0] if len({str(one[name]) for one in given}) > 1]
    if len(differing) != 1 or differing[0] not in ("cell_type", "cluster", "value"):
        return None
    return groups[0].model_copy(update={differing[0]: EITHER.join(one[differing[0]] for one in given)})


def either_unless_all(values: Sequence[Cells], obs: pd.DataFrame | None) -> Cells | None:
    """The cells with any of some values of one column; None where these are all values that it has."""
    assert obs is not None
    known = set(groupings(obs)[values[0].column].unique())
    return either(values) if known - {one.value for one in values} else None


def find_groups(
    text: str,
    types: Sequence[Mention],
    parse: Parse,
    column: str,
    obs: pd.DataFrame | None,
    values: Sequence[Cells] = (),
) -> tuple[Cells, ...]:
    """Two groups of cells that a sentence holds against each other; one, when it is held against the rest; or none."""
    if pair := _cluster_pair(text, parse):
        return pair
    for split in SPLITS:
        match = split.search(text.strip(" ?.!"))
        if match is None:
            continue
        first, second = match["a"], match["b"]
        a, b = parse(first), parse(second)
        if a is not None and b is not None and a != b:
            return a, b
        if a is not None and THE_OTHERS.search(second):
            return (a,)
    if len(types) > 1:
        return tuple(Cells(cell_type=mention.written) for mention in types[:2])
    if len(values) > 1:
        return tuple(values[:2])
    if column and obs is not None and column in obs and obs[column].nunique() == 2 and column in groupings(obs):
        values = sorted(groupings(obs)[column].unique())
        return Cells(column=column, value=values[0]), Cells(column=column, value=values[1])
    whole = parse(text)
    return () if whole is None else (whole,)


def find_column(text: str, obs: pd.DataFrame | None) -> str:
    """The column of obs that a sentence groups or colours by; "" when it names none."""
    if obs is None:
        return ""
    columns = {_plain(str(name)): str(name) for name in obs.columns}
    for name in map(str, obs.columns):  # as it is written, which no everyday word is
        if "_" in name and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text):
            return name
    for match in BY.finditer(text):
        if re.match(r"\s*#?\d", text[match.end() :]):
            continue  # "with cluster 2" is one of them
        words = match[1].lower().split()
        for said in (" ".join(words), words[0]):
            if said != "cell" and (found := _column(said, columns, obs)) is not None:
                return found
    own = {_plain(name): name for name in groupings(obs)}
    only = [name for name in groupings(obs) if not OF_LABELS.search(name)]
    said = {word for match in BY.finditer(text) for one in match[1].lower().split() for word in _singulars(one)}
    said |= {
        one
        for match in OF_SEVERAL.finditer(text)
        for word in match.groups()
        if word
        for one in _singulars(word.lower())
    }
    if len(only) == 1 and said & ANY_GROUP:
        return only[0]
    for match in OF_SEVERAL.finditer(text):
        words = [_plain(word) for word in match.groups() if word]
        for one in (one for word in words for one in _singulars(word)):
            if (found := own.get(one) or _column_of(one, obs)) is not None:
                return found
    return ""


def own_types(obs: pd.DataFrame | None) -> str:
    """The file's own column of cell types, where it has one; "" where it has none, or several."""
    named = [] if obs is None else [name for name in groupings(obs) if OF_LABELS.search(name)]
    found = [name for name in named if not re.search(r"ontology|cluster|leiden|louvain", name, re.IGNORECASE)]
    return found[0] if len(found) == 1 else ""


def column_of_composition(text: str, obs: pd.DataFrame | None) -> str:
    """The column whose groups' composition is asked about: "do the donors have different proportions of types?"."""
    if obs is None or COMPOSITION.search(text) is None:
        return ""
    own = {name.lower(): name for name in groupings(obs)}
    words = [word.lower() for word in re.findall(r"\w+", text)]
    return next((own[one] for word in words for one in (word, word.removesuffix("s")) if one in own), "")


def _column(said: str, columns: dict[str, str], obs: pd.DataFrame) -> str | None:
    """The column that some words mean: as it is written, plural, one of ours, or with a typing error."""
    known = {
        "cell type": "instructcell_cell_type",
        "type": "instructcell_cell_type",
        "celltype": "instructcell_cell_type",
        "confidence": "instructcell_confidence",
        "response": "instructcell_drug_response",
        "cluster": cluster_column(obs) or OWN_CLUSTERS,
    }
    for word in _singulars(_plain(said)):
        if word in known:
            return known[word]
        if word in columns:
            return columns[word]
        if (named := _column_of(word, obs)) is not None:
            return named
    if len(said) < SHORTEST_NEAR:
        return None
    near = process.extractOne(_plain(said), list(columns), scorer=fuzz.ratio, score_cutoff=NEAR)
    return None if near is None else columns[near[0]]


def _singulars(word: str) -> tuple[str, ...]:
    """A word and what it may be the plural of."""
    ways = ("s", ""), ("es", ""), ("ies", "y")
    return (word, *(word.removesuffix(end) + instead for end, instead in ways if word.endswith(end)))


def _column_of(word: str, obs: pd.DataFrame) -> str | None:
    """The column whose groups are all called after a word: "run" of run7 and run8."""
    called = re.compile(rf"{re.escape(word)}[\W_]*\w{{1,3}}", re.IGNORECASE)
    found = [
        column
        for column, values in groupings(obs).items()
        if len(word) > 2 and all(map(called.fullmatch, values.unique()))
    ]
    return found[0] if len(found) == 1 else None


def near_value(word: str, obs: pd.DataFrame) -> Cells | None:
    """The group that a word means with a typing error ("stimm"), where one column has a value like it and no other."""
    if len(word) < SHORTEST_NEAR:
        return None
    found = []
    for column, values in groupings(obs).items():
        near = process.extractOne(
            word.lower(), {value: value.lower() for value in values.unique()}, scorer=fuzz.ratio, score_cutoff=NEAR
        )
        if near is not None:
            found.append(Cells(column=column, value=str(near[2])))
    return found[0] if len(found) == 1 else None


def find_file(text: str, files: Sequence[str], current: str = "") -> str:
    """The loaded file that a sentence names or points at ("the second file"); "" when none is, or there is no choice.

    A name may lack its ending; one word of it is enough where no other file has that word: "the PBMC file".
    """
    closes = CLOSES_FILE.search(text) is not None
    if not files or (len(files) < 2 and not closes):
        return ""
    low = text.lower()
    everyday = "file the data" not in low  # what cells from memory are called
    listed = [name for name in files if name != "the data" or not everyday]
    named = [name for name in listed if name.lower() in low]
    if not named:
        stems = {name: re.split(r"\.", name.lower())[0] for name in listed}
        named = [
            name
            for name, stem in stems.items()
            if len(stem) > 2 and stem not in EVERYDAY and re.search(rf"(?<!\w){re.escape(stem)}(?!\w)", low)
        ]
    if named:
        return max(named, key=len)
    return _file_by_place(low, files, current, closes=closes) or _file_by_word(low, listed)


def _file_by_place(low: str, files: Sequence[str], current: str, *, closes: bool) -> str:
    """The file that is pointed at by its place: "the second file", "file 2", "the other data set", "this file"."""
    if match := FILE_NUMBER.search(low):
        place = int(match[1]) - 1
        return files[place] if 0 <= place < len(files) else ""
    match = FILE_PLACE.search(low)
    if match is None:
        return current if closes and CLOSES_THIS.search(low) else ""
    if match[1] in PLACES:
        place = PLACES[match[1]]
        return files[place] if place < len(files) else ""
    others = [name for name in files if name != current]
    return others[0] if len(others) == 1 else ""


def _file_by_word(low: str, files: Sequence[str]) -> str:
    """The only file with a word in its name that stands before "file" or "data set", or after "switch to"."""
    said = {word for match in FILE_WORD.finditer(low) for word in (match[1] or match[2]).split()}
    said |= {word.removesuffix("s") for word in said}
    found = [name for name in files if said & (set(re.findall(r"[a-z0-9]{3,}", name.lower())) - EVERYDAY)]
    return found[0] if len(found) == 1 else _file_by_tissue(low, files)


# Words that mean one tissue, in the names of files and in what is said of them.
SAME_TISSUE = (
    {"blood", "pbmc", "pbmcs", "leukocytes"}, {"islets", "islet", "pancreas", "pancreatic"}, {"brain", "cortex"},
    {"lung", "airway"}, {"gut", "colon", "intestine", "ileum"}, {"marrow", "bm"}, {"kidney", "renal"},
    {"liver", "hepatic"}, {"skin", "dermis"}, {"tumour", "tumor", "cancer"},
)  # fmt: skip
OF_TISSUE = re.compile(
    r"^\W*(?:(?:and|now|then|ok|next|back|to|same|the|for|in|on|with|go|switch|do|please|again|thanks?|many|let'?s|take|use|so"
    r"|what|about|how|if|you)\W+)*([a-z]+)(?:\W+(?:file|sample|data|data\s?set|cells|one|now|please|too|as\s+well|if|you|again|then))*\W*$",
    re.IGNORECASE,
)


def _file_by_tissue(low: str, files: Sequence[str]) -> str:
    """The only file of a tissue that is all a sentence names: "now the blood" means pbmc.h5ad."""
    match = OF_TISSUE.match(low)
    meant = next((words for words in SAME_TISSUE if match and match[1] in words), set())
    found = [name for name in files if meant & set(re.findall(r"[a-z]+", name.lower()))]
    return found[0] if len(found) == 1 else ""


def _cluster_pair(text: str, parse: Parse) -> tuple[Cells, ...]:
    match = re.search(
        r"^\W*(?:and\s+|compare\s+)?(\d{1,3})\s*(?:vs\.?|versus|against)\s*(\d{1,3})\W*$", text, re.IGNORECASE
    )
    match = match or re.search(r"\bcluster\s+#?(\d+)\b.*\bcluster\s+#?(\d+)\b", text, re.IGNORECASE)
    match = match or re.search(
        r"\bclusters?\s+(\w+)\s*(?:and|vs\.?|versus|with|to|against|from|,|or)\s*(?:clusters?\s+)?(\d+)\b",
        text,
        re.IGNORECASE,
    )
    if match is None:
        return ()
    pair = [parse(f"cluster {match[at]}") for at in (1, 2)]
    return tuple(one for one in pair if one is not None) if all(one is not None for one in pair) else ()


def _limit(text: str) -> float:
    number = float(re.sub(r"[%\s]|percent", "", text))
    return min(number / 100 if number > 1 or "%" in text or "percent" in text else number, 1.0)


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text).strip().lower()
