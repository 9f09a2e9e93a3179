# The key of Elasticsearch. Its value is added by hand: `gcloud secrets versions add NAME --data-file=-`.

resource "google_secret_manager_secret" "elasticsearch_key" {
  count = var.elasticsearch_key ? 1 : 0

  project   = var.project_id
  secret_id = "${var.name}-elasticsearch-api-key"
  labels    = local.labels

  replication {
    user_managed {
      replicas {
        location = var.region

        dynamic "customer_managed_encryption" {
          for_each = var.kms_key[*]
          content {
            kms_key_name = customer_managed_encryption.value
          }
        }
      }
    }
  }

  depends_on = [google_project_service.this]
}

resource "google_secret_manager_secret_iam_member" "pipeline_reads_elasticsearch_key" {
  count = var.elasticsearch_key ? 1 : 0

  project   = var.project_id
  secret_id = google_secret_manager_secret.elasticsearch_key[0].secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.pipeline.member
}
