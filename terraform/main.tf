# What all parts share: names, labels, the services' interfaces. Each part has a file of its own.

locals {
  labels = merge({ application = var.name }, var.labels)

  bucket_prefix = "${replace(replace(var.project_id, ":", "-"), ".", "-")}-${var.name}" # names of buckets are the world's

  services = toset([
    "artifactregistry.googleapis.com",
    "bigquery.googleapis.com",
    "compute.googleapis.com",
    "dataflow.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "pubsub.googleapis.com",
    "secretmanager.googleapis.com",
    "storage.googleapis.com",
  ])
}

data "google_project" "this" {
  project_id = var.project_id
}

resource "google_project_service" "this" {
  for_each = local.services

  project            = var.project_id
  service            = each.value
  disable_on_destroy = false # others may use them
}
