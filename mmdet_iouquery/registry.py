"""The scope of this package, for parts that go by the name of one of mmdet's.

Nearly all parts are registered in mmdet's own scope and need none. mmdet's tools look for some steps of a pipeline by
mmdet's class (``mmdet.datasets.get_loading_pipeline``), and find ``dict(type='LoadImageFromFile')`` whatever else is
in it; with ``_scope_='mmdet_iouquery'`` what is built of it is this package's class of that name.
"""

from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import Registry

SCOPE = 'mmdet_iouquery'

TRANSFORMS = Registry('transform', parent=ROOT_TRANSFORMS, scope=SCOPE, locations=['mmdet_iouquery.datasets.loading'])
