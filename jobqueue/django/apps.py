"""The app, which Django needs in order to find the command."""

from django.apps import AppConfig


class JobQueueConfig(AppConfig):
    name = "jobqueue.django"
    label = "jobqueue"
    verbose_name = "jobqueue"
