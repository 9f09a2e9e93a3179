# All of it: sensors behind Packet Mirroring, the pipeline on Dataflow, own keys, alerts, a budget.

variable "project_id" {
  description = "Project that everything is made in."
  type        = string
}

variable "network" {
  description = "Self link of the network whose packets are mirrored."
  type        = string
}

variable "mirrored_subnetworks" {
  description = "Self links of its subnetworks whose packets are mirrored."
  type        = list(string)
}

variable "sensor_subnetwork" {
  description = "Self link of the subnetwork that sensors stand in."
  type        = string
}

variable "sensor_image" {
  description = "Image of the sensor, with its digest."
  type        = string
}

variable "template" {
  description = "Container spec of the flex template: gs://BUCKET/PATH.json."
  type        = string
}

variable "kms_key" {
  description = "Key of Cloud KMS in the same region."
  type        = string
}

variable "notification_channels" {
  description = "Channels of Cloud Monitoring that alerts go to."
  type        = list(string)
}

variable "billing_account" {
  description = "Billing account of the project."
  type        = string
}

provider "google" {
  project               = var.project_id
  billing_project       = var.project_id
  user_project_override = true # budgets are billed to a project
}

provider "google-beta" {
  project = var.project_id
}

module "flowbeam" {
  source = "../.."

  project_id            = var.project_id
  region                = "europe-west1"
  labels                = { environment = "production" }
  kms_key               = var.kms_key
  flow_retention_days   = 400
  notification_channels = var.notification_channels

  sensors = {
    image       = var.sensor_image
    network     = var.network
    subnetwork  = var.sensor_subnetwork
    subnetworks = var.mirrored_subnetworks
  }

  pipeline = {
    template     = var.template
    most_workers = 16
    options      = { features = ["flowbeam@1", "cic@1"] }
  }

  budget = {
    billing_account = var.billing_account
    monthly_amount  = 2000
  }
}

output "flowbeam" {
  description = "What to open next."
  value       = module.flowbeam.open_next
}
