package envelope

import "testing"

func TestWhatIsHiddenIsShown(t *testing.T) {
	for text, want := range map[string]string{
		"plain\ttext\n":            "plain\ttext\n",
		"Grüße, 日本, مرحبا, 🙂":      "Grüße, 日本, مرحبا, 🙂",
		"pay\u202Eeb ot\u202C":     "pay[U+202E]eb ot[U+202C]",
		"zero\u200Bwidth\uFEFF":    "zero[U+200B]width[U+FEFF]",
		"tag\U000E0041":            "tag[U+E0041]",
		"esc\x1b[2J\x7f\u0085":     "esc[U+001B][2J[U+007F][U+0085]",
		"filler\u3164\u115F\u2800": "filler[U+3164][U+115F][U+2800]",
		"broken\xff":               "broken[0xFF]",
		"line\u2028":               "line[U+2028]",
	} {
		if got := Reveal(text); got != want {
			t.Errorf("%q becomes %q, not %q", text, got, want)
		}
	}
}
