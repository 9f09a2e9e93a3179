# With sensors, pipeline, own keys, a secret and a budget.

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
}

mock_provider "google-beta" {}

variables {
  project_id        = "test-project"
  region            = "europe-west1"
  kms_key           = "projects/test-project/locations/europe-west1/keyRings/r/cryptoKeys/k"
  elasticsearch_key = true
  internet_access   = true

  sensors = {
    image       = "europe-west1-docker.pkg.dev/test-project/flowbeam/sensor@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    network     = "projects/test-project/global/networks/office"
    subnetwork  = "projects/test-project/regions/europe-west1/subnetworks/sensors"
    subnetworks = ["projects/test-project/regions/europe-west1/subnetworks/desks"]
    tags        = ["mirrored"]
    options     = ["--filter=tcp port 443"]
  }

  pipeline = {
    template = "gs://test-project-flowbeam-templates/flows.json"
    options  = { features = ["cic@1", "flowbeam@1"], merge_sensors = true, sensors = ["north"] }
  }

  notification_channels = ["projects/test-project/notificationChannels/1"]

  budget = {
    billing_account = "012345-6789AB-CDEF01"
    monthly_amount  = 500
  }
}

run "whole" {
  command = apply

  assert {
    condition     = one(google_dataflow_flex_template_job.flows).name == "flowbeam-flows-${substr(sha256(jsonencode(["gs://test-project-flowbeam-templates/flows.json", null, one(google_dataflow_flex_template_job.flows).parameters])), 0, 8)}"
    error_message = "the job's name is made of what its state belongs to"
  }

  assert {
    condition     = one(one(google_monitoring_alert_policy.above["cost"].conditions).condition_threshold).threshold_value == 7 && one(one(google_monitoring_alert_policy.above["cost"].conditions).condition_threshold).duration == "3600s"
    error_message = "an hour with all the cores that are allowed is an alert"
  }

  assert {
    condition     = toset(flatten([for rule in google_compute_firewall.mirrored : rule.source_ranges])) == toset(["0.0.0.0/0", "::/0", "35.191.0.0/16", "130.211.0.0/22"]) && alltrue([for rule in google_compute_firewall.mirrored : length(toset([for range in rule.source_ranges : strcontains(range, ":")])) == 1 && rule.target_service_accounts == toset([google_service_account.sensor.email])])
    error_message = "mirrored packets of both families reach the sensors, and nothing else"
  }

  assert {
    condition     = contains(keys(google_project_service.this), "billingbudgets.googleapis.com")
    error_message = "the interface of budgets is switched on where there is one"
  }

  assert {
    condition     = one(google_dataflow_flex_template_job.flows).ip_configuration == "WORKER_IP_PRIVATE"
    error_message = "workers have no public address"
  }

  assert {
    condition     = one(google_dataflow_flex_template_job.flows).on_delete == "drain"
    error_message = "no flow is lost on update"
  }

  assert {
    condition     = one(google_dataflow_flex_template_job.flows).enable_streaming_engine && one(google_dataflow_flex_template_job.flows).autoscaling_algorithm == "THROUGHPUT_BASED" && one(google_dataflow_flex_template_job.flows).max_workers == 4
    error_message = "the job scales, within bounds"
  }

  assert {
    condition = one(google_dataflow_flex_template_job.flows).parameters == tomap({ settings = jsonencode({
      features      = ["cic@1", "flowbeam@1"]
      merge_sensors = true
      sensors       = ["north"]
      input         = "pubsub://test-project/flowbeam-packets"
      output        = "bigquery:test-project.flowbeam.flows"
      rejects       = "gs://test-project-flowbeam-aside/rejects"
      sensor_events = "gs://test-project-flowbeam-aside/sensors"
      drift         = "gs://test-project-flowbeam-aside/drift"
      secret        = ["FLOWBEAM_ELASTICSEARCH_API_KEY=projects/test-project/secrets/flowbeam-elasticsearch-api-key/versions/latest"]
    }) })
    error_message = "the job reads the queue, writes the table, puts aside what is no flow, and knows where the key is, not what it is"
  }

  assert {
    condition     = one(google_dataflow_flex_template_job.flows).service_account_email == google_service_account.pipeline.email
    error_message = "the job is the pipeline's account"
  }

  assert {
    condition     = length(one(one(google_compute_instance_template.sensor).network_interface).access_config) == 0
    error_message = "sensors have no public address"
  }

  assert {
    condition     = one(google_compute_forwarding_rule.sensors).is_mirroring_collector && one(google_compute_forwarding_rule.sensors).load_balancing_scheme == "INTERNAL"
    error_message = "the load balancer takes mirrored packets, and is internal"
  }

  assert {
    condition     = one(one(google_compute_packet_mirroring.this).mirrored_resources).tags == tolist(["mirrored"]) && [for one in one(one(google_compute_packet_mirroring.this).mirrored_resources).subnetworks : one.url] == ["projects/test-project/regions/europe-west1/subnetworks/desks"]
    error_message = "what was chosen is mirrored"
  }

  assert {
    condition     = one(one(google_compute_packet_mirroring.this).filter).direction == "BOTH"
    error_message = "both directions are mirrored: flows have two"
  }

  assert {
    condition     = one(google_compute_region_backend_service.sensors).session_affinity == "CLIENT_IP"
    error_message = "packets between two addresses reach one sensor, as far as Google promises it"
  }

  assert {
    condition     = one(one(google_compute_instance_template.sensor).shielded_instance_config).enable_secure_boot
    error_message = "sensors boot what was signed"
  }

  assert {
    condition     = strcontains(one(google_compute_instance_template.sensor).metadata["user-data"], "--queue=pubsub://test-project/flowbeam-packets --metrics_port=9464 \"--filter=tcp port 443\"\n")
    error_message = "a sensor writes to the queue, with the options asked for"
  }

  assert {
    condition     = can(yamldecode(one(google_compute_instance_template.sensor).metadata["user-data"]).write_files)
    error_message = "what machines are told at their start is YAML"
  }

  assert {
    condition     = one(one(google_compute_instance_template.sensor).service_account).email == google_service_account.sensor.email
    error_message = "a sensor is the sensors' account"
  }

  assert {
    condition = alltrue([for key in [
      google_pubsub_topic.packets.kms_key_name,
      google_pubsub_topic.dead_letters.kms_key_name,
      one(google_bigquery_dataset.flows.default_encryption_configuration).kms_key_name,
      one(google_bigquery_table.flows.encryption_configuration).kms_key_name,
      one(google_storage_bucket.work.encryption).default_kms_key_name,
      one(google_storage_bucket.aside.encryption).default_kms_key_name,
      one(google_storage_bucket.templates.encryption).default_kms_key_name,
      google_artifact_registry_repository.images.kms_key_name,
      one(google_dataflow_flex_template_job.flows).kms_key_name,
      one(one(one(google_compute_instance_template.sensor).disk).disk_encryption_key).kms_key_self_link,
    ] : key == var.kms_key])
    error_message = "all that is stored is encrypted with the key"
  }

  assert {
    condition     = one(google_secret_manager_secret_iam_member.pipeline_reads_elasticsearch_key).role == "roles/secretmanager.secretAccessor" && one(google_secret_manager_secret_iam_member.pipeline_reads_elasticsearch_key).secret_id == "flowbeam-elasticsearch-api-key"
    error_message = "the pipeline reads its one secret"
  }

  assert {
    condition     = one(one(one(google_billing_budget.this).amount).specified_amount).units == "500" && [for rule in one(google_billing_budget.this).threshold_rules : rule.threshold_percent] == [0.5, 0.9, 1]
    error_message = "the budget is that of the month, with three alerts"
  }

  assert {
    condition     = one(google_compute_router_nat.this).source_subnetwork_ip_ranges_to_nat == "LIST_OF_SUBNETWORKS"
    error_message = "only workers reach the internet"
  }
}
