from gptshake.api import Run as Run
from gptshake.api import Study as Study
from gptshake.api import compare as compare
from gptshake.api import compose as compose
from gptshake.api import evaluate as evaluate
from gptshake.api import load_run as load_run
from gptshake.api import load_study as load_study
from gptshake.api import runs as runs
from gptshake.api import train as train

__version__: str
