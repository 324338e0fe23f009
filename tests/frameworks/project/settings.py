"""A project with one app, `post`, whose tasks jobqueue runs."""

from importlib.util import find_spec

SECRET_KEY = "a secret for tests"
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = ["jobqueue.django", "post"]
API = "django.tasks" if find_spec("django.tasks") is not None else "django_tasks"
if API == "django_tasks":
    INSTALLED_APPS.append(API)
TASKS = {
    "default": {"BACKEND": "jobqueue.django.JobQueueBackend", "QUEUES": ["default", "mail"]},
    "dummy": {"BACKEND": f"{API}.backends.dummy.DummyBackend"},
    "patient": {
        "BACKEND": "jobqueue.django.JobQueueBackend",
        "OPTIONS": {"max_attempts": 3, "backoff": ["1m"]},
    },
}
LOGGING_CONFIG = None
