package commandpad

import (
	"slices"
	"testing"
)

func TestWordsThatMixAlphabets(t *testing.T) {
	got := mixed("the p\u0430ypal page", "\u043F\u0440\u0438\u0432\u0435\u0442 world", "\u03B1-test", "x\u03B1")
	if want := []string{"p\u0430ypal", "x\u03B1"}; !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}
