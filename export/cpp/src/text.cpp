#include "text.hpp"

#include <iomanip>
#include <ios>

namespace g2sd {

std::string general(double value, int digits) {
    std::ostringstream out;
    out << std::setprecision(digits) << value;
    return out.str();
}

std::string percent(double share, int decimals) {
    std::ostringstream out;
    out << std::fixed << std::setprecision(decimals) << 100 * share << '%';
    return out.str();
}

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
    std::string joined;
    for (const auto& part : parts) {
        joined += joined.empty() ? part : concat(separator, part);
    }
    return joined;
}

std::string one_line(std::string_view text) {
    std::istringstream in{std::string(text)};
    std::string line;
    for (std::string word; in >> word;) {
        line += line.empty() ? word : " " + word;
    }
    return line;
}

}  // namespace g2sd
