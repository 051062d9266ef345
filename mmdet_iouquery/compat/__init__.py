"""What this project has to know about the inside of mmengine, mmcv, mmdet and torch: nothing else looks in there.

Four subjects: which packages are installed and whether they fit (:mod:`.environment`), mmcv without compiled operators
(:mod:`.operators`), what a run fixes (:mod:`.runner`), and oneDNN's layers with packed weights
(:mod:`.packed_layers`). Importing it imports none of these packages.
"""

from .environment import (
    MODULES,
    Finding,
    check_environment,
    compiled_ops_line,
    diagnose,
    distribution_version,
    environment_message,
    family_of,
    find_module,
    in_range,
    install_line,
    installed_versions,
    mmdet_installed,
)
from .operators import install_ops_stand_in, ops_state
from .packed_layers import (
    PACKED_ACTIVATIONS,
    pack_convolution,
    pack_linear,
    packs_weights,
    run_packed_convolution,
    run_packed_linear,
)
from .runner import STATISTICS, allow_own_checkpoints, boxes_evaluated_by, dumped_as, has_box_evaluator

__all__ = [
    'MODULES',
    'PACKED_ACTIVATIONS',
    'STATISTICS',
    'Finding',
    'allow_own_checkpoints',
    'boxes_evaluated_by',
    'check_environment',
    'compiled_ops_line',
    'diagnose',
    'distribution_version',
    'dumped_as',
    'environment_message',
    'family_of',
    'find_module',
    'has_box_evaluator',
    'in_range',
    'install_line',
    'install_ops_stand_in',
    'installed_versions',
    'mmdet_installed',
    'ops_state',
    'pack_convolution',
    'pack_linear',
    'packs_weights',
    'run_packed_convolution',
    'run_packed_linear',
]
