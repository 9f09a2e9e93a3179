# One service account for each part, each with what it needs and on the one thing it needs it for.

resource "google_service_account" "pipeline" {
  project      = var.project_id
  account_id   = "${var.name}-pipeline"
  display_name = "flowbeam: the pipeline's workers"

  depends_on = [google_project_service.this]
}

resource "google_service_account" "sensor" {
  project      = var.project_id
  account_id   = "${var.name}-sensor"
  display_name = "flowbeam: sensors"

  depends_on = [google_project_service.this]
}

# The pipeline: takes packets, writes flows.

resource "google_project_iam_member" "pipeline_works_for_dataflow" {
  project = var.project_id
  role    = "roles/dataflow.worker"
  member  = google_service_account.pipeline.member
}

resource "google_pubsub_subscription_iam_member" "pipeline_takes_packets" {
  for_each = toset(["roles/pubsub.subscriber", "roles/pubsub.viewer"])

  project      = var.project_id
  subscription = google_pubsub_subscription.packets.name
  role         = each.value
  member       = google_service_account.pipeline.member
}

resource "google_bigquery_dataset_iam_member" "pipeline_writes_flows" {
  project    = var.project_id
  dataset_id = google_bigquery_dataset.flows.dataset_id
  role       = "roles/bigquery.dataEditor"
  member     = google_service_account.pipeline.member
}

resource "google_storage_bucket_iam_member" "pipeline_works_in" {
  bucket = google_storage_bucket.work.name
  role   = "roles/storage.objectUser"
  member = google_service_account.pipeline.member
}

resource "google_storage_bucket_iam_member" "pipeline_puts_aside" {
  bucket = google_storage_bucket.aside.name
  role   = "roles/storage.objectUser" # a repeated bundle replaces its file
  member = google_service_account.pipeline.member
}

resource "google_storage_bucket_iam_member" "pipeline_starts_from" {
  bucket = google_storage_bucket.templates.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.pipeline.member
}

resource "google_artifact_registry_repository_iam_member" "reads_images" {
  for_each = { pipeline = google_service_account.pipeline.member, sensor = google_service_account.sensor.member }

  project    = var.project_id
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = each.value
}

# A sensor: publishes packets and writes its log. Stolen, it can add packets to the queue, and read nothing.

resource "google_pubsub_topic_iam_member" "sensor_publishes_packets" {
  for_each = toset(["roles/pubsub.publisher", "roles/pubsub.viewer"])

  project = var.project_id
  topic   = google_pubsub_topic.packets.name
  role    = each.value
  member  = google_service_account.sensor.member
}

resource "google_project_iam_member" "sensor_logs" {
  project = var.project_id
  role    = "roles/logging.logWriter"
  member  = google_service_account.sensor.member
}
