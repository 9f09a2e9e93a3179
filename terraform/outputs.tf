output "queue" {
  description = "What sensors write to: --queue of pipelines.capture."
  value       = "pubsub://${var.project_id}/${google_pubsub_topic.packets.name}"
}

output "input" {
  description = "What the pipeline reads: --input of pipelines.flows."
  value       = "pubsub://${var.project_id}/${google_pubsub_subscription.packets.name}"
}

output "output" {
  description = "Where flows go: --output of pipelines.flows."
  value       = "bigquery:${local.flows_path}"
}

output "aside" {
  description = "Where rejects, events of sensors and drift go: --rejects, --sensor_events, --drift of pipelines.flows begin with it."
  value       = "gs://${google_storage_bucket.aside.name}"
}

output "templates" {
  description = "Bucket of container specs of the flex template."
  value       = "gs://${google_storage_bucket.templates.name}"
}

output "service_accounts" {
  description = "Who each part is."
  value       = { pipeline = google_service_account.pipeline.email, sensor = google_service_account.sensor.email }
}

output "images" {
  description = "Where images are pushed to."
  value       = "${var.region}-docker.pkg.dev/${var.project_id}/${google_artifact_registry_repository.images.repository_id}"
}

output "open_next" {
  description = "Pages of Google's console, in the order in which one looks at them."
  value = {
    dashboard = "https://console.cloud.google.com/monitoring/dashboards?project=${var.project_id}"
    job       = "https://console.cloud.google.com/dataflow/jobs?project=${var.project_id}"
    flows     = "https://console.cloud.google.com/bigquery?project=${var.project_id}&p=${var.project_id}&d=${google_bigquery_dataset.flows.dataset_id}&t=flows_latest&page=table"
    alerts    = "https://console.cloud.google.com/monitoring/alerting?project=${var.project_id}"
    queue     = "https://console.cloud.google.com/cloudpubsub/subscription/detail/${google_pubsub_subscription.packets.name}?project=${var.project_id}"
  }
}

output "instance_template" {
  description = "The template of a sensor, for machines on any network; null without sensors."
  value       = one(google_compute_instance_template.sensor[*].self_link)
}
