# Sensors: a group of machines behind an internal load balancer, to which the packets of others are mirrored. The
# template suits any network: `instance_template` among the outputs.

locals {
  sensors = var.sensors[*]

  health_checkers = ["35.191.0.0/16", "130.211.0.0/22"] # Google's, for load balancers and groups
  metrics_port    = 9464

  mirrored_ranges = var.sensors == null ? {} : {
    v4 = concat([for range in local.cidr_ranges : range if !strcontains(range, ":")], local.health_checkers)
    v6 = [for range in local.cidr_ranges : range if strcontains(range, ":")]
  }
  cidr_ranges = try(length(var.sensors.cidr_ranges), 0) > 0 ? var.sensors.cidr_ranges : ["0.0.0.0/0", "::/0"]
}

resource "google_compute_instance_template" "sensor" {
  count = length(local.sensors)

  project      = var.project_id
  name_prefix  = "${var.name}-sensor-"
  region       = var.region
  machine_type = var.sensors.machine_type
  labels       = local.labels

  disk {
    source_image = "projects/cos-cloud/global/images/family/cos-stable"
    auto_delete  = true
    boot         = true
    disk_type    = "pd-balanced"
    disk_size_gb = 20

    dynamic "disk_encryption_key" {
      for_each = var.kms_key[*]
      content {
        kms_key_self_link = disk_encryption_key.value
      }
    }
  }

  network_interface {
    subnetwork = var.sensors.subnetwork # no access_config: no public address
  }

  metadata = {
    block-project-ssh-keys = "true"
    google-logging-enabled = "true"
    user-data = templatefile("${path.module}/sensor.yaml.tftpl", {
      image    = var.sensors.image
      registry = split("/", var.sensors.image)[0]
      queue    = "pubsub://${var.project_id}/${google_pubsub_topic.packets.name}"
      port     = local.metrics_port
      options  = var.sensors.options
    })
  }

  service_account {
    email  = google_service_account.sensor.email
    scopes = ["cloud-platform"] # what it may do is said by its roles
  }

  shielded_instance_config {
    enable_secure_boot          = true
    enable_vtpm                 = true
    enable_integrity_monitoring = true
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "google_compute_region_health_check" "sensor" {
  count = length(local.sensors)

  project             = var.project_id
  region              = var.region
  name                = "${var.name}-sensor"
  check_interval_sec  = 10
  unhealthy_threshold = 6

  http_health_check {
    port         = local.metrics_port
    request_path = "/metrics"
  }
}

resource "google_compute_region_instance_group_manager" "sensors" {
  count = length(local.sensors)

  project            = var.project_id
  region             = var.region
  name               = "${var.name}-sensors"
  base_instance_name = "${var.name}-sensor"
  target_size        = var.sensors.number

  version {
    instance_template = google_compute_instance_template.sensor[0].id
  }

  auto_healing_policies {
    health_check      = google_compute_region_health_check.sensor[0].id
    initial_delay_sec = 180
  }

  update_policy {
    type                  = "PROACTIVE"
    minimal_action        = "REPLACE"
    max_surge_fixed       = 3
    max_unavailable_fixed = 0
  }
}

resource "google_compute_region_backend_service" "sensors" {
  count = length(local.sensors)

  project               = var.project_id
  region                = var.region
  name                  = "${var.name}-sensors"
  load_balancing_scheme = "INTERNAL"
  protocol              = "TCP"
  network               = var.sensors.network
  health_checks         = [google_compute_region_health_check.sensor[0].id]
  # A hash of both addresses. Nothing relies on it that the two directions of a connection reach the same sensor: a flow is
  # made of the packets of one sensor, so there is one, unless more are asked for.
  session_affinity = "CLIENT_IP"

  backend {
    group          = google_compute_region_instance_group_manager.sensors[0].instance_group
    balancing_mode = "CONNECTION"
  }
}

resource "google_compute_forwarding_rule" "sensors" {
  count = length(local.sensors)

  project                = var.project_id
  region                 = var.region
  name                   = "${var.name}-sensors"
  labels                 = local.labels
  load_balancing_scheme  = "INTERNAL"
  is_mirroring_collector = true
  ip_protocol            = "TCP"
  all_ports              = true
  network                = var.sensors.network
  subnetwork             = var.sensors.subnetwork
  backend_service        = google_compute_region_backend_service.sensors[0].id
}

resource "google_compute_packet_mirroring" "this" {
  count = length(local.sensors)

  project = var.project_id
  region  = var.region
  name    = var.name

  network {
    url = var.sensors.network
  }

  collector_ilb {
    url = google_compute_forwarding_rule.sensors[0].id
  }

  mirrored_resources {
    tags = var.sensors.tags

    dynamic "subnetworks" {
      for_each = var.sensors.subnetworks
      content {
        url = subnetworks.value
      }
    }
  }

  filter {
    cidr_ranges = local.cidr_ranges
    direction   = "BOTH"
  }
}

# Mirrored packets pass the firewall with the addresses they have, so all must be let in. They reach the machine's
# network card, where the sensor reads them; the machine's own firewall drops them after that.
resource "google_compute_firewall" "mirrored" {
  for_each = { for family, ranges in local.mirrored_ranges : family => ranges if length(ranges) > 0 }

  project       = var.project_id
  name          = "${var.name}-mirrored-${each.key}" # a rule has addresses of one family
  network       = var.sensors.network
  description   = "Mirrored packets to the sensors, and health checks."
  direction     = "INGRESS"
  source_ranges = each.value

  allow {
    protocol = "all"
  }

  target_service_accounts = [google_service_account.sensor.email]
}
