#include <algorithm>
#include <charconv>
#include <optional>
#include <system_error>

#include "error.hpp"
#include "json.hpp"
#include "text.hpp"
#include "utf8.hpp"

namespace g2sd {
namespace {

constexpr int max_depth = 100;  // nobody's manifest is deeper; a hostile one must not exhaust the stack

class Parser {
  public:
    explicit Parser(std::string_view text) : text_(text) {}

    Json document() {
        Json value = read(0);
        blanks();
        if (at_ != text_.size()) {
            fail("the end of the file");
        }
        return value;
    }

  private:
    std::string_view text_;
    std::size_t at_ = 0;

    [[noreturn]] void fail(std::string_view wanted) const {
        throw UserError(concat("no JSON at byte ", at_, ": wanted ", wanted));
    }

    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    void blanks() { at_ = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size()); }

    bool took(char letter) {
        if (at_ < text_.size() && text_[at_] == letter) {
            ++at_;
            return true;
        }
        return false;
    }

    void expect(char letter) {
        if (!took(letter)) {
            fail(std::string{'\'', letter, '\''});
        }
    }

    Json read(int depth) {
        if (depth > max_depth) {
            fail("fewer values inside each other");
        }
        blanks();
        switch (peek()) {
            case '{':
                return object(depth);
            case '[':
                return array(depth);
            case '"':
                return string();
            case 't':
                return literal("true", true);
            case 'f':
                return literal("false", false);
            case 'n':
                return literal("null", nullptr);
            default:
                return number();
        }
    }

    Json literal(std::string_view word, Json value) {
        if (text_.substr(at_, word.size()) != word) {
            fail(word);
        }
        at_ += word.size();
        return value;
    }

    Json object(int depth) {
        Json::Object members;
        expect('{');
        blanks();
        if (took('}')) {
            return members;
        }
        do {
            blanks();
            std::string key = string();
            if (std::any_of(members.begin(), members.end(),
                            [&key](const auto& member) { return member.first == key; })) {
                fail("each key once, and " + key + " comes twice");
            }
            blanks();
            expect(':');
            Json value = read(depth + 1);
            members.emplace_back(std::move(key), std::move(value));
            blanks();
        } while (took(','));
        expect('}');
        return members;
    }

    Json array(int depth) {
        Json::Array values;
        expect('[');
        blanks();
        if (took(']')) {
            return values;
        }
        do {
            values.push_back(read(depth + 1));
            blanks();
        } while (took(','));
        expect(']');
        return values;
    }

    std::string string() {
        expect('"');
        std::string out;
        while (!took('"')) {
            if (at_ == text_.size() || static_cast<unsigned char>(text_[at_]) < 0x20) {
                fail("the end of a string");
            }
            if (took('\\')) {
                append_escape(out);
            } else {
                out += text_[at_++];
            }
        }
        if (!is_utf8(out)) {
            fail("UTF-8 in the string that ends here");
        }
        return out;
    }

    void append_escape(std::string& out) {
        constexpr std::string_view letters = "\"\\/bfnrt";
        constexpr std::string_view meanings = "\"\\/\b\f\n\r\t";
        const char letter = peek();
        ++at_;
        if (letter == 'u') {
            append_utf8(code_point(), out);
        } else if (const auto found = letters.find(letter); letter != '\0' && found != std::string_view::npos) {
            out += meanings[found];
        } else {
            fail("a known escape");
        }
    }

    char32_t code_point() {
        const char32_t first = code_unit();
        if (first < 0xD800 || first > 0xDFFF) {
            return first;
        }
        if (first > 0xDBFF || !took('\\') || !took('u')) {
            fail("the second half of a surrogate pair");
        }
        const char32_t second = code_unit();
        if (second < 0xDC00 || second > 0xDFFF) {
            fail("the second half of a surrogate pair");
        }
        return 0x10000 + ((first - 0xD800) << 10U) + (second - 0xDC00);
    }

    char32_t code_unit() {
        const std::string_view digits = text_.substr(at_, 4);
        unsigned value = 0;
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
        if (digits.size() != 4 || error != std::errc() || end != digits.data() + 4) {
            fail("four hexadecimal digits");
        }
        at_ += 4;
        return value;
    }

    std::size_t digits_from(std::size_t start) const {
        return std::min(text_.find_first_not_of("0123456789", start), text_.size()) - start;
    }

    /// Length of the number here as JSON's grammar has it (no plus, no leading zero, digits around the point), or 0.
    std::size_t number_length(bool& whole) const {
        std::size_t end = at_ + (peek() == '-' ? 1 : 0);
        const std::size_t leading = digits_from(end);
        if (leading == 0 || (leading > 1 && text_[end] == '0')) {
            return 0;
        }
        end += leading;
        if (end < text_.size() && text_[end] == '.') {
            const std::size_t decimals = digits_from(end + 1);
            if (decimals == 0) {
                return 0;
            }
            end += 1 + decimals;
            whole = false;
        }
        if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
            const std::size_t sign = end + 1 < text_.size() && (text_[end + 1] == '+' || text_[end + 1] == '-') ? 1 : 0;
            const std::size_t exponent = digits_from(end + 1 + sign);
            if (exponent == 0) {
                return 0;
            }
            end += 1 + sign + exponent;
            whole = false;
        }
        return end - at_;
    }

    template <typename Number>
    std::optional<Json> converted(std::string_view digits) const {
        Number value{};
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
        if (error != std::errc() || end != digits.data() + digits.size()) {
            return std::nullopt;
        }
        return Json(value);
    }

    Json number() {
        bool whole = true;
        const std::size_t length = number_length(whole);
        if (length == 0) {
            fail("a value");
        }
        const std::string_view digits = text_.substr(at_, length);
        const std::optional<Json> value = whole ? converted<std::int64_t>(digits) : converted<double>(digits);
        if (!value) {
            fail("a number that fits 64 bits");
        }
        at_ += length;
        return *value;
    }
};

}  // namespace

Json parse_json(std::string_view text) {
    return Parser(text).document();
}

}  // namespace g2sd
