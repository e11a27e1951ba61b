#include "arguments.hpp"

#include <charconv>
#include <system_error>

#include "error.hpp"
#include "text.hpp"

namespace g2sd {

Arguments::Arguments(const std::vector<std::string>& words, const std::set<std::string>& with_value,
                     const std::set<std::string>& flags) {
    for (std::size_t index = 0; index < words.size(); ++index) {
        const std::string& word = words[index];
        if (word.rfind("--", 0) != 0) {
            operands_.push_back(word);
            continue;
        }
        const std::size_t equals = word.find('=');
        const std::string option = word.substr(0, equals);
        const bool is_flag = flags.count(option) > 0;
        if (!is_flag && with_value.count(option) == 0) {
            throw UserError(option + ": no such option here (see g2sd-runner --help)");
        }
        if (is_flag || equals != std::string::npos) {
            options_[option] = is_flag ? "" : word.substr(equals + 1);
        } else if (++index < words.size()) {
            options_[option] = words[index];
        } else {
            throw UserError(option + ": lacks its value");
        }
    }
}

std::string Arguments::text(const std::string& option, const std::string& otherwise) const {
    const auto found = options_.find(option);
    return found == options_.end() ? otherwise : found->second;
}

std::size_t Arguments::number(const std::string& option, std::size_t otherwise, std::size_t least) const {
    const auto found = options_.find(option);
    if (found == options_.end()) {
        return otherwise;
    }
    const std::string& text = found->second;
    std::size_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    constexpr std::size_t most = 1'000'000;
    if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
        throw UserError(concat(option, " is ", text, "; it must be a whole number from ", least, " to ", most));
    }
    return value;
}

}  // namespace g2sd
