"""The evaluation kit: one room per question, each a `measure(bench, task)` over a task of `train/tasks`.

tasks.py (YAML) -> splits.py (who is tested, refused when a group leaks) -> bench.py (the product's own answers)
-> annotation, panels, calibration, unknown, generation, drug, phrasing, clusters -> evaluation.json -> report and card
"""
