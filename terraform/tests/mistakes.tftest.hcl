# What is wrong is told before anything is made.

mock_provider "google" {}
mock_provider "google-beta" {}

variables {
  project_id = "test-project"
  region     = "europe-west1"
}

run "settings" {
  command = plan

  variables {
    project_id             = "No Project"
    region                 = "europe-west1-b"
    name                   = "Flow_Beam"
    kms_key                = "my-key"
    packet_retention_hours = 500
    flow_retention_days    = -1
    subnet_cidr            = "10.0.0.0"
    aside_retention_days   = 0
    dataset_location       = "Europe"
    labels                 = { Team = "soc" }
    notification_channels  = ["mail"]
    budget                 = { billing_account = "b", monthly_amount = 0 }
  }

  expect_failures = [
    var.project_id,
    var.region,
    var.name,
    var.kms_key,
    var.packet_retention_hours,
    var.flow_retention_days,
    var.subnet_cidr,
    var.aside_retention_days,
    var.dataset_location,
    var.labels,
    var.notification_channels,
    var.budget,
  ]
}

run "template_is_no_file_and_image_has_no_digest" {
  command = plan

  variables {
    pipeline = { template = "flows.json" }
    sensors  = { image = "x/sensor:latest", network = "n", subnetwork = "s", tags = ["t"] }
  }

  expect_failures = [var.pipeline, var.sensors]
}

run "too_many_workers_and_nobody_mirrored" {
  command = plan

  variables {
    pipeline = { template = "gs://b/flows.json", workers = 9 }
    sensors = {
      image      = "x/sensor@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
      network    = "n"
      subnetwork = "s"
    }
  }

  expect_failures = [var.pipeline, var.sensors]
}

run "cores_not_told_and_no_sensor" {
  command = plan

  variables {
    pipeline = { template = "gs://b/flows.json", machine_type = "e2-medium" }
    sensors = {
      image      = "x/sensor@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
      network    = "n"
      subnetwork = "s"
      tags       = ["t"]
      number     = 0
    }
  }

  expect_failures = [var.pipeline, var.sensors]
}

run "an_option_of_the_module_and_no_network" {
  command = plan

  variables {
    pipeline = { template = "gs://b/flows.json", options = { region = "us-east1" } }
    sensors = {
      image       = "x/sensor@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
      network     = "n"
      subnetwork  = "s"
      tags        = ["t"]
      cidr_ranges = ["10.0.0.0"]
    }
  }

  expect_failures = [var.pipeline, var.sensors]
}

run "an_option_that_systemd_would_split" {
  command = plan

  variables {
    sensors = {
      image      = "x/sensor@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
      network    = "n"
      subnetwork = "s"
      tags       = ["t"]
      options    = ["--sensor=%H"]
    }
  }

  expect_failures = [var.sensors]
}
