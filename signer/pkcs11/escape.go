package pkcs11

import (
	"errors"
	"strings"
)

const hexDigits = "0123456789ABCDEF"

// plain reports whether RFC 7512 lets c stand for itself in a value, in the
// path and in the query alike, and no separator of ours is confused by it.
func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~:@/+,", c) >= 0
}

// escape percent-encodes what is not plain.
func escape(value string) string {
	var b strings.Builder
	for i := range len(value) {
		if c := value[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.WriteString(escapeAll([]byte{c}))
		}
	}
	return b.String()
}

// escapeAll percent-encodes every byte: the RFC's advice for id.
func escapeAll(value []byte) string {
	var b strings.Builder
	for _, c := range value {
		b.WriteByte('%')
		b.WriteByte(hexDigits[c>>4])
		b.WriteByte(hexDigits[c&15])
	}
	return b.String()
}

// unescape is the reverse of escape. "+" stands for itself: RFC 7512 is not
// HTML form encoding.
func unescape(text string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '%':
			if i+2 >= len(text) {
				return "", errors.New("% is followed by two hex digits")
			}
			high, low := unhex(text[i+1]), unhex(text[i+2])
			if high < 0 || low < 0 {
				return "", errors.New("% is followed by two hex digits")
			}
			b.WriteByte(byte(high<<4 | low))
			i += 2
		case c <= ' ' || c >= 0x7f || strings.IndexByte(`"<>\^`+"`{}#", c) >= 0:
			return "", errors.New("spaces and special characters are percent-encoded (a space is %20)")
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
