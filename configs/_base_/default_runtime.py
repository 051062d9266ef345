"""What every config shares: our parts' import, hooks, logging."""

default_scope = 'mmdet'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # 'atomic' writes a checkpoint beside its name and renames it into place
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=3, backend_args=dict(backend='atomic')),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # resumed anywhere, a run goes on as it would have
    repeatable=dict(type='RepeatableHook'),
    # the run's phases in the log; a warm-up that is longer than the run is refused
    schedule=dict(type='ScheduleHook'),
    # gradients with inf or NaN never reach the weights
    non_finite=dict(type='NonFiniteHook'),
    # images that training could not use are counted in the log
    skipped_pictures=dict(type='SkippedPicturesHook'),
    # on CPUs: memory is kept for the next step instead of being given back and asked for again
    freed_memory=dict(type='KeepFreedMemoryHook'),
    # a validation that the run was stopped in is made up for when it is resumed
    missed_validation=dict(type='MissedValidationHook'),
    # SIGTERM, SIGUSR1 or Ctrl-C: save after the running iteration, and stop
    stop=dict(type='StopOnSignalHook'),
    visualization=dict(type='DetVisualizationHook'),
)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
# SyncBN under several processes, as the authors train; one process keeps plain BN
sync_bn = 'torch'
