"""What flows were: attacks as people, Suricata, Zeek or the generator tell them, and the labels that follow."""
