# The pipeline as a streaming job of Dataflow. State belongs to the options it was made with, so another template, image
# or option is another job, by its name: the old one drains, then the new one starts. Packets wait in the queue meanwhile.

locals {
  pipeline_options = merge({
    input         = "pubsub://${var.project_id}/${google_pubsub_subscription.packets.name}"
    output        = "bigquery:${local.flows_path}"
    rejects       = "gs://${google_storage_bucket.aside.name}/rejects"
    sensor_events = "gs://${google_storage_bucket.aside.name}/sensors"
    drift         = "gs://${google_storage_bucket.aside.name}/drift"
    secret        = [for secret in google_secret_manager_secret.elasticsearch_key : "FLOWBEAM_ELASTICSEARCH_API_KEY=projects/${var.project_id}/secrets/${secret.secret_id}/versions/latest"]
  }, try(var.pipeline.options, {}))

  # Parameters of a template are texts, each given once: our options are one of them, so that they may be lists and switches.
  pipeline_parameters = { settings = jsonencode(local.pipeline_options) }

  job_prefix = "${var.name}-flows-"
  job_name   = var.pipeline == null ? null : "${local.job_prefix}${substr(sha256(jsonencode([var.pipeline.template, var.pipeline.image, local.pipeline_parameters])), 0, 8)}"
}

resource "google_dataflow_flex_template_job" "flows" {
  provider = google-beta
  count    = var.pipeline == null ? 0 : 1

  project                 = var.project_id
  region                  = var.region
  name                    = local.job_name
  labels                  = local.labels
  container_spec_gcs_path = var.pipeline.template
  parameters              = local.pipeline_parameters
  sdk_container_image     = var.pipeline.image
  service_account_email   = google_service_account.pipeline.email
  network                 = google_compute_network.this.name
  subnetwork              = "regions/${var.region}/subnetworks/${google_compute_subnetwork.workers.name}"
  ip_configuration        = "WORKER_IP_PRIVATE"
  machine_type            = var.pipeline.machine_type
  num_workers             = var.pipeline.workers
  max_workers             = var.pipeline.most_workers
  autoscaling_algorithm   = "THROUGHPUT_BASED"
  enable_streaming_engine = true
  temp_location           = "gs://${google_storage_bucket.work.name}/temp"
  staging_location        = "gs://${google_storage_bucket.work.name}/staging"
  kms_key_name            = var.kms_key
  on_delete               = "drain"

  depends_on = [
    google_bigquery_dataset_iam_member.pipeline_writes_flows,
    google_bigquery_table.views,
    google_project_iam_member.pipeline_works_for_dataflow,
    google_pubsub_subscription_iam_member.pipeline_takes_packets,
    google_secret_manager_secret_iam_member.pipeline_reads_elasticsearch_key,
    google_storage_bucket_iam_member.pipeline_puts_aside,
    google_storage_bucket_iam_member.pipeline_starts_from,
    google_storage_bucket_iam_member.pipeline_works_in,
  ]
}
