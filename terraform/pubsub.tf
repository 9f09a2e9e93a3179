# The queue of packets: sensors publish blocks, in order within each part of a sensor; the pipeline pulls them.

resource "google_pubsub_topic" "packets" {
  project      = var.project_id
  name         = "${var.name}-packets"
  labels       = local.labels
  kms_key_name = var.kms_key

  message_storage_policy {
    allowed_persistence_regions = [var.region] # order holds within one region; packets do not leave it
  }

  depends_on = [google_project_service.this]
}

resource "google_pubsub_subscription" "packets" {
  project                    = var.project_id
  name                       = "${var.name}-packets"
  topic                      = google_pubsub_topic.packets.id
  labels                     = local.labels
  ack_deadline_seconds       = 60
  message_retention_duration = "${var.packet_retention_hours * 3600}s"
  enable_message_ordering    = true

  expiration_policy {
    ttl = "" # never, however long the pipeline is away
  }

  retry_policy {
    minimum_backoff = "1s"
    maximum_backoff = "60s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters.id
    max_delivery_attempts = 100 # only what no worker survives: rejects are the pipeline's own affair
  }
}

resource "google_pubsub_topic" "dead_letters" {
  project      = var.project_id
  name         = "${var.name}-dead-letters"
  labels       = local.labels
  kms_key_name = var.kms_key

  message_storage_policy {
    allowed_persistence_regions = [var.region]
  }

  depends_on = [google_project_service.this]
}

resource "google_pubsub_subscription" "dead_letters" {
  project                    = var.project_id
  name                       = "${var.name}-dead-letters"
  topic                      = google_pubsub_topic.dead_letters.id
  labels                     = local.labels
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = ""
  }
}

# For people and tools that read the topic. It is not attached to it: a message is a single-object encoding, whose ten
# octets of header Pub/Sub's own validation does not know.
resource "google_pubsub_schema" "packet_block" {
  project    = var.project_id
  name       = "${var.name}-packet-block"
  type       = "AVRO"
  definition = file("${path.module}/../transforms/schemas/packet_block.avsc")

  depends_on = [google_project_service.this]
}

# Pub/Sub's own agent moves what cannot be delivered.

locals {
  pubsub_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

resource "google_pubsub_topic_iam_member" "agent_publishes_dead_letters" {
  project = var.project_id
  topic   = google_pubsub_topic.dead_letters.name
  role    = "roles/pubsub.publisher"
  member  = local.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "agent_takes_dead_letters" {
  project      = var.project_id
  subscription = google_pubsub_subscription.packets.name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}
