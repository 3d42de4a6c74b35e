package source

// MaxLabel is the longest DNS label (RFC 1035, section 2.3.4).
const MaxLabel = 63

// WrongName says why a name is no DNS label in the form of RFC 1035, section
// 2.3.1, or "". The later RFC 1123 allows a digit in front, but site.2nd would
// be no reference in HCL.
func WrongName(name string) string {
	switch {
	case name == "":
		return "it is empty"
	case len(name) > MaxLabel:
		return "it is longer than 63 characters"
	case name == "localhost":
		return "every machine calls itself that"
	}
	for i := range len(name) {
		c := name[i]
		letter, digit := c >= 'a' && c <= 'z', c >= '0' && c <= '9'
		switch {
		case c >= 'A' && c <= 'Z':
			return "it has an upper-case letter"
		case !letter && !digit && c != '-':
			return "a name has only a-z, 0-9 and -"
		case i == 0 && !letter:
			return "it does not start with a letter"
		case i == len(name)-1 && c == '-':
			return "it ends with a dash"
		}
	}
	return ""
}
