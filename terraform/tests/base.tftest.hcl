# What is there without sensors and pipeline.

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
}

mock_provider "google-beta" {}

variables {
  project_id = "test-project"
  region     = "europe-west1"
}

run "base" {
  command = apply

  assert {
    condition     = google_pubsub_subscription.packets.enable_message_ordering
    error_message = "blocks of one sensor come in order"
  }

  assert {
    condition     = google_pubsub_subscription.packets.message_retention_duration == "86400s"
    error_message = "packets wait a day for the pipeline"
  }

  assert {
    condition     = one(google_pubsub_subscription.packets.expiration_policy).ttl == ""
    error_message = "the subscription never expires"
  }

  assert {
    condition     = one(google_pubsub_subscription.packets.dead_letter_policy).dead_letter_topic == google_pubsub_topic.dead_letters.id
    error_message = "what cannot be processed is kept"
  }

  assert {
    condition     = google_pubsub_subscription.dead_letters.message_retention_duration == "604800s"
    error_message = "dead letters are kept for seven days"
  }

  assert {
    condition     = alltrue([for topic in [google_pubsub_topic.packets, google_pubsub_topic.dead_letters] : toset(one(topic.message_storage_policy).allowed_persistence_regions) == toset(["europe-west1"])])
    error_message = "packets stay in the region"
  }

  assert {
    condition     = jsondecode(google_pubsub_schema.packet_block.definition).name == "PacketBlock"
    error_message = "the schema is that of the code"
  }

  assert {
    condition = alltrue([
      google_pubsub_topic_iam_member.agent_publishes_dead_letters.member == "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com",
      google_pubsub_topic_iam_member.agent_publishes_dead_letters.role == "roles/pubsub.publisher",
      google_pubsub_subscription_iam_member.agent_takes_dead_letters.role == "roles/pubsub.subscriber",
    ])
    error_message = "Pub/Sub's agent may move dead letters"
  }

  assert {
    condition     = one(google_bigquery_table.flows.time_partitioning).type == "DAY" && one(google_bigquery_table.flows.time_partitioning).field == "flow_start"
    error_message = "flows are partitioned by the day they start"
  }

  assert {
    condition     = one(google_bigquery_table.flows.time_partitioning).expiration_ms == 7776000000
    error_message = "flows are kept for 90 days"
  }

  assert {
    condition     = google_bigquery_table.flows.clustering == tolist(["src_ip", "dst_ip", "predicted_class"])
    error_message = "flows are clustered by source, destination and class"
  }

  assert {
    condition     = length(setsubtract(google_bigquery_table.flows.clustering, [for field in jsondecode(google_bigquery_table.flows.schema) : field.name if field.mode != "REPEATED"])) == 0
    error_message = "the table has the columns that it is clustered by"
  }

  assert {
    condition     = [for field in jsondecode(google_bigquery_table.flows.schema) : field.type if field.name == "flow_start" && field.mode == "REQUIRED"] == ["TIMESTAMP"]
    error_message = "the table has the column that it is partitioned by, in every row"
  }

  assert {
    condition     = google_bigquery_table.flows.deletion_protection && !google_bigquery_dataset.flows.delete_contents_on_destroy
    error_message = "flows are not removed by mistake"
  }

  assert {
    condition     = strcontains(one(google_bigquery_table.flows_latest.view).query, "FROM `test-project.flowbeam.flows`") && !one(google_bigquery_table.flows_latest.view).use_legacy_sql
    error_message = "the view reads the table"
  }

  assert {
    condition     = toset([for view in google_bigquery_table.views : view.table_id]) == toset(["flows_alerts", "flows_talkers", "flows_conversations"]) && alltrue([for view in google_bigquery_table.views : strcontains(one(view.view).query, "FROM `test-project.flowbeam.flows_latest`") && !strcontains(one(view.view).query, "{") && !one(view.view).use_legacy_sql])
    error_message = "the other views read that view: each flow counts once"
  }

  assert {
    condition     = google_bigquery_dataset.flows.location == "europe-west1"
    error_message = "flows stay in the region"
  }

  assert {
    condition     = alltrue([for bucket in [google_storage_bucket.work, google_storage_bucket.aside, google_storage_bucket.templates] : bucket.public_access_prevention == "enforced" && bucket.uniform_bucket_level_access])
    error_message = "no bucket can be made public"
  }

  assert {
    condition     = one(one(google_storage_bucket.work.lifecycle_rule).condition).age == 14
    error_message = "temporary files go after two weeks"
  }

  assert {
    condition     = one(one(google_storage_bucket.aside.lifecycle_rule).condition).age == 90 && !google_storage_bucket.aside.force_destroy
    error_message = "rejects, events and drift go after 90 days, and not by mistake before"
  }

  assert {
    condition     = one(google_storage_bucket.templates.versioning).enabled && !google_storage_bucket.templates.force_destroy
    error_message = "templates are kept, older ones too"
  }

  assert {
    condition     = one(google_artifact_registry_repository.images.docker_config).immutable_tags
    error_message = "a tag means one image for ever"
  }

  assert {
    condition     = toset([for one in google_pubsub_topic_iam_member.sensor_publishes_packets : one.role]) == toset(["roles/pubsub.publisher", "roles/pubsub.viewer"])
    error_message = "a sensor publishes to its topic, and no more"
  }

  assert {
    condition     = google_project_iam_member.sensor_logs.role == "roles/logging.logWriter"
    error_message = "in the project a sensor writes its log, and no more"
  }

  assert {
    condition     = google_project_iam_member.pipeline_works_for_dataflow.role == "roles/dataflow.worker"
    error_message = "in the project the pipeline is a worker, and no more"
  }

  assert {
    condition     = google_bigquery_dataset_iam_member.pipeline_writes_flows.role == "roles/bigquery.dataEditor"
    error_message = "the pipeline writes rows and adds columns in its dataset"
  }

  assert {
    condition     = google_storage_bucket_iam_member.pipeline_starts_from.role == "roles/storage.objectViewer" && alltrue([for one in [google_storage_bucket_iam_member.pipeline_works_in, google_storage_bucket_iam_member.pipeline_puts_aside] : one.role == "roles/storage.objectUser"])
    error_message = "the pipeline cannot change what it is started from"
  }

  assert {
    condition     = google_service_account.pipeline.account_id != google_service_account.sensor.account_id
    error_message = "each part is somebody of its own"
  }

  assert {
    condition     = google_compute_subnetwork.workers.private_ip_google_access && !google_compute_network.this.auto_create_subnetworks
    error_message = "Google's services are reached privately"
  }

  assert {
    condition     = length(google_compute_router_nat.this) == 0
    error_message = "without being asked, nothing reaches the internet"
  }

  assert {
    condition     = google_compute_firewall.workers.source_service_accounts == google_compute_firewall.workers.target_service_accounts && one(one(google_compute_firewall.workers.allow).ports) == "12345-12346"
    error_message = "only workers reach workers"
  }

  assert {
    condition     = toset(keys(google_monitoring_alert_policy.above)) == toset(["backlog", "dead_letters", "drift", "drops", "failed", "rejects", "silent", "warnings", "watermark"])
    error_message = "each trouble has its alert"
  }

  assert {
    condition     = toset([for name, metric in google_logging_metric.this : name if strcontains(metric.filter, "resource.labels.job_name=~\"^flowbeam-flows-\"") && strcontains(metric.filter, "WARNING")]) == toset(["drift", "drops", "rejects", "silent", "warnings"])
    error_message = "what the pipeline's log tells is counted"
  }

  assert {
    condition     = strcontains(one(one(google_monitoring_alert_policy.above["rejects"].conditions).condition_threshold).filter, "user/flowbeam/rejects") && one(one(google_monitoring_alert_policy.above["rejects"].conditions).condition_threshold).threshold_value == 0
    error_message = "the first reject of an hour is an alert"
  }

  assert {
    condition     = one(one(google_monitoring_alert_policy.above["watermark"].conditions).condition_threshold).threshold_value == 900 && strcontains(one(one(google_monitoring_alert_policy.above["watermark"].conditions).condition_threshold).filter, "job_name=starts_with(\"flowbeam-flows-\")")
    error_message = "a quarter of an hour behind is an alert"
  }

  assert {
    condition     = one(one(google_monitoring_alert_policy.above["backlog"].conditions).condition_threshold).threshold_value == 600
    error_message = "packets that wait for ten minutes are an alert"
  }

  assert {
    condition     = alltrue([for policy in google_monitoring_alert_policy.above : length(one(policy.documentation).content) > 40])
    error_message = "each alert says what to do"
  }

  assert {
    condition     = one(one(google_monitoring_alert_policy.silent.conditions).condition_absent).duration == "600s"
    error_message = "silent sensors are noticed"
  }

  assert {
    condition     = length(jsondecode(google_monitoring_dashboard.this.dashboard_json).mosaicLayout.tiles) == 6
    error_message = "the dashboard has its charts"
  }

  assert {
    condition     = contains(keys(google_project_service.this), "iam.googleapis.com") && !contains(keys(google_project_service.this), "billingbudgets.googleapis.com")
    error_message = "interfaces of the services that are used are switched on"
  }

  assert {
    condition     = length(output.open_next) == 5 && alltrue([for page in values(output.open_next) : startswith(page, "https://console.cloud.google.com/") && strcontains(page, "project=test-project")])
    error_message = "outputs say which pages to open next"
  }

  assert {
    condition     = length(google_dataflow_flex_template_job.flows) + length(google_compute_packet_mirroring.this) + length(google_billing_budget.this) + length(google_secret_manager_secret.elasticsearch_key) == 0
    error_message = "job, sensors, budget and secret are there only when asked for"
  }

  assert {
    condition     = output.queue == "pubsub://test-project/flowbeam-packets" && output.aside == "gs://test-project-flowbeam-aside" && output.input == "pubsub://test-project/flowbeam-packets" && output.output == "bigquery:test-project.flowbeam.flows"
    error_message = "outputs are what the commands take"
  }
}

run "labels" {
  command = apply

  variables {
    name   = "net-north"
    labels = { team = "soc" }
  }

  assert {
    condition     = google_pubsub_topic.packets.labels == tomap({ application = "net-north", team = "soc" }) && google_bigquery_table.flows.labels == google_pubsub_topic.packets.labels
    error_message = "labels are on what takes some"
  }

  assert {
    condition     = google_bigquery_dataset.flows.dataset_id == "net_north" && google_storage_bucket.work.name == "test-project-net-north-work"
    error_message = "names begin with the name, as far as BigQuery allows"
  }
}
