"""COCO-style sets: the check before training, by the rules of loader and evaluator.

:mod:`.checks` opens each set of a config; :mod:`.report` says what :mod:`.loading_rules` and :mod:`.evaluation_rules`
make of its file, which :mod:`.json_file` reads and :mod:`.arrays` holds.
"""
