"""Mirror of a sweep's records in the trackers that its users look at: TensorBoard, W&B, trackio, MLflow.

`mirror_processes` starts one process a tracker, which reads the run directories alone and remembers what it
has sent. Nothing is trained or judged from what a tracker says or does.
"""
