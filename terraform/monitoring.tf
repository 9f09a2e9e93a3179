# What wakes somebody up, and the page to look at then.

locals {
  subscription_filter = "resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"${google_pubsub_subscription.packets.name}\""
  topic_filter        = "resource.type=\"pubsub_topic\" AND resource.labels.topic_id=\"${google_pubsub_topic.packets.name}\""
  dead_letter_filter  = "resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"${google_pubsub_subscription.dead_letters.name}\""
  job_filter          = "resource.type=\"dataflow_job\" AND resource.labels.job_name=starts_with(\"${local.job_prefix}\")"
  log_filter          = "resource.type=\"dataflow_step\" AND resource.labels.job_name=~\"^${local.job_prefix}\""

  told = { # what the pipeline's warnings begin with
    rejects = "^rejects: "
    drops   = "^sensor .*: (killed|replaced|dropping|lost_blocks|late_packets|from_future):"
    silent  = "^sensor .*: silent:"
    drift   = "^(inputs changed|model decayed): "
  }

  log_metrics = merge(
    { warnings = "${local.log_filter} AND severity>=WARNING" },
    { for name, words in local.told : name => "${local.log_filter} AND severity=WARNING AND jsonPayload.message=~\"${words}\"" },
  )

  alerts = merge(local.cost_alerts, {
    backlog = {
      title  = "packets wait for the pipeline"
      metric = "pubsub.googleapis.com/subscription/oldest_unacked_message_age"
      filter = local.subscription_filter, aligner = "ALIGN_MAX", above = 600, for_s = 300
      advice = "The pipeline is too slow or does not run. Look at the job; raise pipeline.most_workers. Packets are lost after ${var.packet_retention_hours} hours."
    }
    watermark = {
      title  = "the pipeline's time stands still"
      metric = "dataflow.googleapis.com/job/data_watermark_age"
      filter = local.job_filter, aligner = "ALIGN_MAX", above = 900, for_s = 300
      advice = "A sensor is silent, or a step fails again and again: see the job's logs."
    }
    failed = {
      title  = "the pipeline failed"
      metric = "dataflow.googleapis.com/job/is_failed"
      filter = local.job_filter, aligner = "ALIGN_MAX", above = 0, for_s = 0
      advice = "See the job's logs; apply again to start it. Packets wait in the queue."
    }
    dead_letters = {
      title  = "packets cannot be processed"
      metric = "pubsub.googleapis.com/subscription/num_undelivered_messages"
      filter = local.dead_letter_filter, aligner = "ALIGN_MAX", above = 0, for_s = 0
      advice = "Blocks that no worker survived are in the subscription ${google_pubsub_subscription.dead_letters.name} for seven days."
    }
    warnings = {
      title  = "the pipeline warns"
      metric = "logging.googleapis.com/user/${google_logging_metric.this["warnings"].name}"
      filter = "resource.type=\"dataflow_job\"", aligner = "ALIGN_DELTA", above = 100, for_s = 0
      advice = "More than 100 warnings in five minutes: rejects, lost blocks, stores that do not answer. See the job's logs."
    }
    rejects = {
      title  = "packets or flows are rejected"
      metric = "logging.googleapis.com/user/${google_logging_metric.this["rejects"].name}"
      filter = "resource.type=\"dataflow_job\"", aligner = "ALIGN_DELTA", above = 0, for_s = 0
      advice = "The log says why, once an hour for each reason; what was refused is in gs://${google_storage_bucket.aside.name}/rejects, as Parquet."
    }
    drops = {
      title  = "a sensor loses packets"
      metric = "logging.googleapis.com/user/${google_logging_metric.this["drops"].name}"
      filter = "resource.type=\"dataflow_job\"", aligner = "ALIGN_DELTA", above = 0, for_s = 0
      advice = "The log names the sensor. It was killed, or replaced without an end: its machine's log. It drops: more rings, a filter, a larger machine. Blocks are lost: a larger buffer. Late, or from the future: its clock."
    }
    silent = {
      title  = "a sensor is silent"
      metric = "logging.googleapis.com/user/${google_logging_metric.this["silent"].name}"
      filter = "resource.type=\"dataflow_job\"", aligner = "ALIGN_DELTA", above = 0, for_s = 0
      advice = "The log names the sensor, the queue received nothing of it for long. Look at its machine and its log; its open flows have ended."
    }
    drift = {
      title  = "the model no longer fits"
      metric = "logging.googleapis.com/user/${google_logging_metric.this["drift"].name}"
      filter = "resource.type=\"dataflow_job\"", aligner = "ALIGN_DELTA", above = 0, for_s = 0
      advice = "What the flows look like has changed, or known answers say that the model errs. Train again."
    }
  })

  cost_alerts = var.pipeline == null ? {} : {
    cost = {
      title  = "the pipeline costs the most it may"
      metric = "dataflow.googleapis.com/job/current_num_vcpus"
      filter = local.job_filter, aligner = "ALIGN_MIN", for_s = 3600
      above  = var.pipeline.most_workers * tonumber(regex(local.machine_cores, var.pipeline.machine_type)[0]) - 1
      advice = "For an hour it has had all of pipeline.most_workers. More traffic than it is made for, a store that is slow, or a flood: look at the dashboard, then raise the bound or filter at the sensors."
    }
  }
}

resource "google_logging_metric" "this" {
  for_each = local.log_metrics

  project     = var.project_id
  name        = "${var.name}/${each.key}"
  description = "Lines of the pipeline's log: ${each.key}."
  filter      = each.value

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
  }

  depends_on = [google_project_service.this]
}

resource "google_monitoring_alert_policy" "above" {
  for_each = local.alerts

  project               = var.project_id
  display_name          = "${var.name}: ${each.value.title}"
  combiner              = "OR"
  notification_channels = var.notification_channels
  user_labels           = local.labels

  conditions {
    display_name = each.value.title

    condition_threshold {
      filter          = "metric.type=\"${each.value.metric}\" AND ${each.value.filter}"
      comparison      = "COMPARISON_GT"
      threshold_value = each.value.above
      duration        = "${each.value.for_s}s"

      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = each.value.aligner
        cross_series_reducer = each.value.aligner == "ALIGN_DELTA" ? "REDUCE_SUM" : "REDUCE_MAX"
      }
    }
  }

  documentation {
    content = each.value.advice
  }

  depends_on = [google_project_service.this]
}

resource "google_monitoring_alert_policy" "silent" {
  project               = var.project_id
  display_name          = "${var.name}: no sensor sends"
  combiner              = "OR"
  notification_channels = var.notification_channels
  user_labels           = local.labels

  conditions {
    display_name = "no sensor sends"

    condition_absent {
      filter   = "metric.type=\"pubsub.googleapis.com/topic/send_message_operation_count\" AND ${local.topic_filter}"
      duration = "600s"

      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_RATE"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  documentation {
    content = "A sensor says every second that it lives, on a silent line too: none does. Look at the sensors' logs and whether they may publish."
  }

  depends_on = [google_project_service.this]
}

resource "google_monitoring_dashboard" "this" {
  project = var.project_id

  dashboard_json = jsonencode({
    displayName = var.name
    mosaicLayout = {
      columns = 12
      tiles = [
        for number, chart in [
          { title = "Blocks sent by sensors, per second", filter = "metric.type=\"pubsub.googleapis.com/topic/send_message_operation_count\" AND ${local.topic_filter}", aligner = "ALIGN_RATE" },
          { title = "Oldest waiting packet, s", filter = "metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" AND ${local.subscription_filter}", aligner = "ALIGN_MAX" },
          { title = "Blocks that wait", filter = "metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\" AND ${local.subscription_filter}", aligner = "ALIGN_MEAN" },
          { title = "Age of the pipeline's time, s", filter = "metric.type=\"dataflow.googleapis.com/job/data_watermark_age\" AND ${local.job_filter}", aligner = "ALIGN_MAX" },
          { title = "Processors at work", filter = "metric.type=\"dataflow.googleapis.com/job/current_num_vcpus\" AND ${local.job_filter}", aligner = "ALIGN_MEAN" },
          { title = "Warnings of the pipeline", filter = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.this["warnings"].name}\" AND resource.type=\"dataflow_job\"", aligner = "ALIGN_DELTA" },
          ] : {
          xPos   = number % 2 * 6
          yPos   = floor(number / 2) * 4
          width  = 6
          height = 4
          widget = {
            title = chart.title
            xyChart = {
              dataSets = [{
                plotType = "LINE"
                timeSeriesQuery = {
                  timeSeriesFilter = {
                    filter      = chart.filter
                    aggregation = { alignmentPeriod = "60s", perSeriesAligner = chart.aligner }
                  }
                }
              }]
            }
          }
        }
      ]
    }
  })

  depends_on = [google_project_service.this]
}
