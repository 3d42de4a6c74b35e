package systemd

// OtherName is what Debian calls a unit for which the other distributions have
// a common name; its own alias is there only while the unit is enabled.
func OtherName(unit string) string {
	if unit == "sshd.service" {
		return "ssh.service"
	}
	return ""
}
