"""What this project has to know about the inside of mmengine, mmcv, mmdet and torch: nothing else looks in there.

Which packages are installed and whether they fit (:mod:`.environment`), mmcv without compiled operators
(:mod:`.operators`), what a run fixes (:mod:`.runner`), operators of torch that are no public interface
(:mod:`.torch_operators`), and what the C library and the garbage collector do with memory (:mod:`.c_library`).
Importing it imports none of these packages.
"""

from .c_library import keep_freed_memory, take_maps_from_heap, without_garbage_collection
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
    torch_findings,
)
from .operators import install_ops_stand_in, ops_state, without_import_notes
from .runner import (
    STATISTICS,
    allow_own_checkpoints,
    batches_counted_from,
    boxes_evaluated_by,
    dumped_as,
    forget_visualizers,
    has_box_evaluator,
    load_weights_and_average,
)
from .torch_operators import (
    autocast_dtype,
    batch_norm_again,
    batch_norm_gradients,
    computes_fast,
    dispatch_mode,
    note_if_slow,
    pack_convolution,
    pack_linear,
    packs_weights,
    relu_gradient,
    row_products,
    run_packed_convolution,
    run_packed_linear,
    silu_gradient,
    trained_batch_norm,
)

__all__ = [
    'MODULES',
    'STATISTICS',
    'Finding',
    'allow_own_checkpoints',
    'autocast_dtype',
    'batch_norm_again',
    'batch_norm_gradients',
    'batches_counted_from',
    'boxes_evaluated_by',
    'check_environment',
    'compiled_ops_line',
    'computes_fast',
    'diagnose',
    'dispatch_mode',
    'distribution_version',
    'dumped_as',
    'environment_message',
    'family_of',
    'find_module',
    'forget_visualizers',
    'has_box_evaluator',
    'in_range',
    'install_line',
    'install_ops_stand_in',
    'installed_versions',
    'keep_freed_memory',
    'load_weights_and_average',
    'mmdet_installed',
    'note_if_slow',
    'ops_state',
    'pack_convolution',
    'pack_linear',
    'packs_weights',
    'relu_gradient',
    'row_products',
    'run_packed_convolution',
    'run_packed_linear',
    'silu_gradient',
    'take_maps_from_heap',
    'torch_findings',
    'trained_batch_norm',
    'without_garbage_collection',
    'without_import_notes',
]
