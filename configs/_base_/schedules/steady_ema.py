"""An average whose memory is long from the first step, for a start from good weights.

Bases may not name the same entries, so it has a name of its own; a config takes it out with ``_base_.pop``.
"""

steady_ema = dict(
    type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.0001, update_buffers=True, priority=49
)
