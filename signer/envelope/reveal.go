package envelope

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Reveal writes characters that a reader would not see, or that would move
// others, as what they are: [U+202E], and a byte that is no UTF-8 as [0xFF].
// Text of PROTOCOL section 1 may have some of them, and names in an archive or
// lines of a patch may have all; who signs must see that they are there. A
// newline, a tab and a carriage return stay.
func Reveal(text string) string {
	if !strings.ContainsFunc(text, hidden) {
		return text
	}
	var out strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&out, "[0x%02X]", text[0])
		case hidden(r):
			fmt.Fprintf(&out, "[U+%04X]", r)
		default:
			out.WriteString(text[:size])
		}
		text = text[size:]
	}
	return out.String()
}

// blank are letters, symbols and marks that show as nothing.
var blank = &unicode.RangeTable{
	R16: []unicode.Range16{{0x034F, 0x034F, 1}, {0x115F, 0x1160, 1}, {0x17B4, 0x17B5, 1}, {0x180B, 0x180F, 1}, {0x2028, 0x2029, 1}, {0x2800, 0x2800, 1}, {0x3164, 0x3164, 1},
		{0xFE00, 0xFE0E, 1}, {0xFFA0, 0xFFA0, 1}},
	R32: []unicode.Range32{{0xE0100, 0xE01EF, 1}},
}

func hidden(r rune) bool {
	if r < utf8.RuneSelf {
		return r < ' ' && r != '\n' && r != '\t' && r != '\r' || r == 0x7F
	}
	return r == utf8.RuneError || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, blank)
}
