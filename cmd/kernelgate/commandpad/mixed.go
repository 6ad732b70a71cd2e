package commandpad

import (
	"strings"
	"unicode"
)

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
