"""A Pub/Sub emulator of tests, with everything in memory."""

from pathlib import Path

import grpc
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from servers.install import installed
from servers.processes import Server, answers


class PubSubEmulator(Server):
    """What is published is in memory: a killed emulator comes back empty, on the same port.

    Attributes:
        host: `HOST:PORT`, as clients take it from the environment variable PUBSUB_EMULATOR_HOST.
        project: The project of all that is made here.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.host = f"127.0.0.1:{self.port('pubsub')}"
        self.project = "flowbeam-tests"

    def start(self) -> "PubSubEmulator":
        """Starts the emulator, and returns when it answers."""
        self.run_process("pubsub", installed("pubsub") / "pubsub", f"-port={self.port('pubsub')}")
        self.wait_for("pubsub", self.is_up)
        return self

    def is_up(self) -> bool:
        """Whether the emulator answers."""
        return answers(self.port("pubsub"))

    def kill(self) -> None:
        """Ends the emulator as `kill -9` does, and with it all topics and messages."""
        self.kill_process("pubsub")

    def environment(self) -> dict[str, str]:
        """What makes clients of another process come here."""
        return {"PUBSUB_EMULATOR_HOST": self.host, "PUBSUB_PROJECT_ID": self.project}

    def create_topic(self, name: str, *subscriptions: str, ordered: bool = True) -> None:
        """Makes a topic, and subscriptions of it that keep the order of messages with the same ordering key."""
        channel = grpc.insecure_channel(self.host)
        with PublisherClient(transport=PublisherGrpcTransport(channel=channel)) as publisher:
            publisher.create_topic(name=self.topic(name))
        channel = grpc.insecure_channel(self.host)
        with SubscriberClient(transport=SubscriberGrpcTransport(channel=channel)) as subscriber:
            for subscription in subscriptions:
                subscriber.create_subscription(
                    request={
                        "name": self.subscription(subscription),
                        "topic": self.topic(name),
                        "ack_deadline_seconds": 10,
                        "enable_message_ordering": ordered,
                    }
                )

    def topic(self, name: str) -> str:
        """The path of a topic."""
        return f"projects/{self.project}/topics/{name}"

    def subscription(self, name: str) -> str:
        """The path of a subscription."""
        return f"projects/{self.project}/subscriptions/{name}"
