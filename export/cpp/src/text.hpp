#pragma once

#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace g2sd {

/// Everything given, written one after the other.
template <typename... Parts>
std::string concat(const Parts&... parts) {
    std::ostringstream out;
    (out << ... << parts);
    return out.str();
}

/// A number in the form of printf's %.<digits>g.
std::string general(double value, int digits);

/// A share in [0, 1] as a percentage with so many decimals.
std::string percent(double share, int decimals);

std::string join(const std::vector<std::string>& parts, std::string_view separator);

/// All white space as single blanks, so that a library's message fits on one line.
std::string one_line(std::string_view text);

}  // namespace g2sd
