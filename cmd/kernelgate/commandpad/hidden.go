package commandpad

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// reveal writes characters that a reader would not see, or that would move
// others, as what they are: [U+202E]. All of a page goes through it, since any
// text in it may be a proposer's: an intent, a file's name, a line of a diff.
// The pages' own text has none of them.
func reveal(page []byte) []byte {
	if !bytes.ContainsFunc(page, hidden) {
		return page
	}
	var out bytes.Buffer
	for len(page) > 0 {
		r, size := utf8.DecodeRune(page)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&out, "[0x%02X]", page[0])
		case hidden(r):
			fmt.Fprintf(&out, "[U+%04X]", r)
		default:
			out.Write(page[:size])
		}
		page = page[size:]
	}
	return out.Bytes()
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

// alphabets are those whose letters are taken for each other's.
var alphabets = []*unicode.RangeTable{unicode.Latin, unicode.Cyrillic, unicode.Greek, unicode.Armenian, unicode.Cherokee}

// mixed are the words of texts that mix alphabets, as one does who wants a word
// to be taken for another.
func mixed(texts ...string) (words []string) {
	for _, word := range strings.FieldsFunc(strings.Join(texts, " "), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		n := 0
		for _, alphabet := range alphabets {
			if strings.ContainsFunc(word, func(r rune) bool { return unicode.Is(alphabet, r) }) {
				n++
			}
		}
		if n > 1 {
			words = append(words, word)
		}
	}
	return words
}
