"""Runs as RayJobs on Kubernetes: each is a Ray cluster of its own that KubeRay starts and takes down.

`config.py` what operators say, `manifest.py` and `pods.py` a run as objects (pure), `api.py` the API server, `apply.py` the one
place that changes anything there, `watch.py` what is there now, `observation.py` what that means for a run (pure),
`checks.py` what must be in order before, `access.py` what we may do, `backend.py` all of it behind the seam.
"""
