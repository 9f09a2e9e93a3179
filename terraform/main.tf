# What all parts share: names, labels, the services' interfaces. Each part has a file of its own.

locals {
  labels = merge({ application = var.name }, var.labels)

  bucket_prefix = "${replace(replace(var.project_id, ":", "-"), ".", "-")}-${var.name}" # names of buckets are the world's

  machine_cores = "^(?:[a-z0-9]+-)?[a-z]+-([0-9]+)" # of a machine type: n2-standard-2, n2-custom-4-8192

  services = toset(concat(var.budget == null ? [] : ["billingbudgets.googleapis.com"], [
    "artifactregistry.googleapis.com",
    "bigquery.googleapis.com",
    "compute.googleapis.com",
    "dataflow.googleapis.com",
    "iam.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "pubsub.googleapis.com",
    "secretmanager.googleapis.com",
    "storage.googleapis.com",
  ]))
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
