"""``python -m mmdet_iouquery.doctor``: an installation, the data of a config or a checkpoint, looked at before work.

:mod:`.environment` looks at the installation; :mod:`.data_inspection` reads what a config names, :mod:`.data_findings`
judges it and :mod:`.data_report` tells it; :mod:`.checkpoint` reads a checkpoint without running code from it;
:mod:`.command` is the command line.
"""
