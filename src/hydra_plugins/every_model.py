"""Give Hydra the choice `model=all`: every file in conf/model/.

Hydra has no wildcard for config groups. It does look for plug-ins in packages named `hydra_plugins`, and so does
`dvc exp run` (see `plugins_path` in .dvc/config), so both compose the same list and a new model is a new file.
"""

from pathlib import Path

from hydra.core.config_store import ConfigStore

folder = Path(__file__).resolve().parents[2] / "conf" / "model"
names = sorted(path.stem for path in folder.glob("*.yaml"))
ConfigStore.instance().store(group="model", name="all", node={"defaults": [*names]})
