# Buckets: what the pipeline needs while it works, what it puts beside its flows, and what it is started from. Images:
# sensor, worker, launcher.

resource "google_storage_bucket" "work" {
  project                     = var.project_id
  name                        = "${local.bucket_prefix}-work"
  location                    = var.region
  labels                      = local.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true # temporary and staged files of the pipeline

  lifecycle_rule {
    condition {
      age = 14
    }
    action {
      type = "Delete"
    }
  }

  soft_delete_policy {
    retention_duration_seconds = 0
  }

  dynamic "encryption" {
    for_each = var.kms_key[*]
    content {
      default_kms_key_name = encryption.value
    }
  }

  depends_on = [google_project_service.this]
}

# Rejects, events of sensors, drift: Parquet, some of it octets of packets, so it goes after a while.
resource "google_storage_bucket" "aside" {
  project                     = var.project_id
  name                        = "${local.bucket_prefix}-aside"
  location                    = var.region
  labels                      = local.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = !var.deletion_protection

  lifecycle_rule {
    condition {
      age = var.aside_retention_days
    }
    action {
      type = "Delete"
    }
  }

  dynamic "encryption" {
    for_each = var.kms_key[*]
    content {
      default_kms_key_name = encryption.value
    }
  }

  depends_on = [google_project_service.this]
}

resource "google_storage_bucket" "templates" {
  project                     = var.project_id
  name                        = "${local.bucket_prefix}-templates"
  location                    = var.region
  labels                      = local.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = !var.deletion_protection

  versioning {
    enabled = true
  }

  lifecycle_rule {
    condition {
      num_newer_versions = 10
    }
    action {
      type = "Delete"
    }
  }

  dynamic "encryption" {
    for_each = var.kms_key[*]
    content {
      default_kms_key_name = encryption.value
    }
  }

  depends_on = [google_project_service.this]
}

resource "google_artifact_registry_repository" "images" {
  project       = var.project_id
  location      = var.region
  repository_id = var.name
  description   = "Images of flowbeam: sensor, worker, launcher."
  format        = "DOCKER"
  labels        = local.labels
  kms_key_name  = var.kms_key

  docker_config {
    immutable_tags = true
  }

  depends_on = [google_project_service.this]
}
