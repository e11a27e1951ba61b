#pragma once

#include <string>
#include <string_view>

namespace g2sd {

/// Whether text is well-formed UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text);

/// Append one code point, which must be none of the surrogates.
void append_utf8(char32_t code, std::string& out);

}  // namespace g2sd
