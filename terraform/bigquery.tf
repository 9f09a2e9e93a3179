# The table of flows and its views, written by `python -m sinks.bigquery --schema` and `--views`; jobs add columns.

locals {
  views      = { for name, view in jsondecode(file("${path.module}/schemas/views.json")) : name => merge(view, { query = replace(view.query, "{table}", local.flows_path) }) }
  flows_path = "${var.project_id}.${google_bigquery_dataset.flows.dataset_id}.${google_bigquery_table.flows.table_id}"
}

resource "google_bigquery_dataset" "flows" {
  project                    = var.project_id
  dataset_id                 = replace(var.name, "-", "_")
  location                   = coalesce(var.dataset_location, var.region)
  description                = "Network flows of flowbeam."
  labels                     = local.labels
  delete_contents_on_destroy = !var.deletion_protection

  dynamic "default_encryption_configuration" {
    for_each = var.kms_key[*]
    content {
      kms_key_name = default_encryption_configuration.value
    }
  }

  depends_on = [google_project_service.this]
}

resource "google_bigquery_table" "flows" {
  project                  = var.project_id
  dataset_id               = google_bigquery_dataset.flows.dataset_id
  table_id                 = "flows"
  description              = "One row for each record of a flow; ask flows_latest."
  labels                   = local.labels
  schema                   = file("${path.module}/schemas/flows.json")
  clustering               = ["src_ip", "dst_ip", "predicted_class"]
  require_partition_filter = false
  deletion_protection      = var.deletion_protection

  time_partitioning {
    type          = "DAY"
    field         = "flow_start"
    expiration_ms = var.flow_retention_days > 0 ? var.flow_retention_days * 86400000 : null
  }

  dynamic "encryption_configuration" {
    for_each = var.kms_key[*]
    content {
      kms_key_name = encryption_configuration.value
    }
  }

  lifecycle {
    ignore_changes = [schema] # a job with places, threats or a model has added its columns; none is ever taken away
  }
}

resource "google_bigquery_table" "flows_latest" {
  project             = var.project_id
  dataset_id          = google_bigquery_dataset.flows.dataset_id
  table_id            = "flows_latest"
  description         = local.views["latest"].description
  labels              = local.labels
  deletion_protection = false # holds nothing

  view {
    use_legacy_sql = false
    query          = local.views["latest"].query
  }
}

resource "google_bigquery_table" "views" {
  for_each = { for name, view in local.views : name => view if name != "latest" }

  project             = var.project_id
  dataset_id          = google_bigquery_dataset.flows.dataset_id
  table_id            = "flows_${each.key}"
  description         = each.value.description
  labels              = local.labels
  deletion_protection = false

  view {
    use_legacy_sql = false
    query          = each.value.query
  }

  depends_on = [google_bigquery_table.flows_latest] # which they ask
}
