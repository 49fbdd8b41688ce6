"""One model in one container, as Vertex AI, SageMaker and Azure ML run it; also with `docker run` alone.

settings.py: what the platform's variables say -> supervisor.py: model processes (worker.py) behind HAProxy (front.py).

There is no Ray in it: the platform itself starts and ends containers with the load, and gives each one port. HAProxy
stands in front for the same reason as everywhere in raypipe: it cuts slow clients and refuses what is too much before a
Python process sees it.
"""
