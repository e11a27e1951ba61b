#include "commands.hpp"

#include <algorithm>
#include <iomanip>
#include <ostream>

#include "arguments.hpp"
#include "bench.hpp"
#include "bundle.hpp"
#include "error.hpp"
#include "image_file.hpp"
#include "predict.hpp"
#include "runner.hpp"
#include "selftest.hpp"
#include "text.hpp"

namespace g2sd {
namespace {

constexpr const char* help = R"(usage: g2sd-runner COMMAND BUNDLE [options]

  selftest BUNDLE            verify every file, run the stored sample and compare with its expected logits
  predict  BUNDLE IMAGE...   classify PNG, PGM or PPM files, or raw pixels
  bench    BUNDLE            latency of the network, variants in turn

  --variant NAME   one of the bundle's variants (default: its default; bench: all that run here)
  --threads N      threads of a runtime on the CPU (default: one per CPU this process may use)
  --json           JSON instead of text
  --top-k K        predict: how many classes to show (default 5)
  --size WxH       predict: the files are raw pixels, uint8 [H, W, channels]
  --batch B        bench: images at a time (default 1)
  --warmup N       bench: batches that are not timed (default 10)
  --repeats N      bench: batches that are timed (default 100)

Exit status: 0 done or passed, 1 the self-test failed or an image could not be read, 2 a mistake in what was asked.
)";

/// What follows the command's name; the first operand is the bundle.
struct Call {
    Arguments arguments;
    std::string bundle;
    std::string variant;
    std::size_t threads;
    bool as_json;
};

Call call_from(const std::vector<std::string>& words, std::set<std::string> with_value) {
    with_value.insert({"--variant", "--threads"});
    Arguments arguments(words, with_value, {"--json"});
    if (arguments.operands().empty()) {
        throw UserError("which bundle? (see g2sd-runner --help)");
    }
    const std::string bundle = arguments.operands().front();
    const std::string variant = arguments.text("--variant", "");
    const std::size_t threads = arguments.number("--threads", available_cpus());
    const bool as_json = arguments.has("--json");
    return {std::move(arguments), bundle, variant, threads, as_json};
}

void refuse_more(const Call& call) {
    if (call.arguments.operands().size() > 1) {
        throw UserError(call.arguments.operands()[1] + ": one bundle is all this command takes");
    }
}

void write_selftest(const SelftestResult& result, std::ostream& out) {
    out << "selftest " << (result.passed ? "passed" : "failed: ") << result.reason << '\n';
    if (!result.bundle.empty()) {
        out << "bundle   sha256 " << result.bundle << "\nvariant  " << result.variant << '\n';
    }
    if (!result.runtime.empty()) {
        out << "runtime  " << result.runtime << '\n';
    }
    if (result.agreement) {
        out << "sample   " << result.agreement->num_images << " answers, largest logit difference "
            << general(result.agreement->max_abs_logit_diff, 2) << ", " << result.agreement->flipped
            << " decisions flipped\n";
    }
}

int selftest(const std::vector<std::string>& words, std::ostream& out) {
    const Call call = call_from(words, {});
    refuse_more(call);
    const SelftestResult result = run_selftest(call.bundle, call.variant, call.threads);
    if (call.as_json) {
        out << result.to_json().dump() << '\n';
    } else {
        write_selftest(result, out);
    }
    return result.passed ? 0 : 1;
}

std::optional<RawSize> raw_size(const Arguments& arguments) {
    if (!arguments.has("--size")) {
        return std::nullopt;
    }
    const std::string text = arguments.text("--size", "");
    const std::size_t cross = text.find('x');
    if (cross == std::string::npos) {
        throw UserError("--size is " + text + "; it must be WIDTHxHEIGHT, for example 640x480");
    }
    const Arguments sides({"--width", text.substr(0, cross), "--height", text.substr(cross + 1)},
                          {"--width", "--height"}, {});
    return RawSize{sides.number("--width", 0), sides.number("--height", 0)};
}

void write_predictions(const std::string& image, const std::vector<Prediction>& predictions, bool as_json,
                       std::ostream& out) {
    if (as_json) {
        Json::Array listed;
        for (const Prediction& prediction : predictions) {
            listed.push_back(prediction.to_json());
        }
        out << Json(Json::Object{{"image", image}, {"predictions", std::move(listed)}}).dump() << '\n';
        return;
    }
    out << image << '\n';
    for (const Prediction& prediction : predictions) {
        out << std::setw(9) << percent(prediction.probability, 2) << "  " << prediction.name << '\n';
    }
}

void refuse_image(const std::string& image, const char* reason, bool as_json, std::ostream& out, std::ostream& err) {
    if (as_json) {
        out << Json(Json::Object{{"image", image}, {"error", reason}}).dump() << '\n';
    } else {
        err << "g2sd-runner: " << reason << '\n';
    }
}

int predict(const std::vector<std::string>& words, std::ostream& out, std::ostream& err) {
    const Call call = call_from(words, {"--top-k", "--size"});
    const std::size_t top_k = call.arguments.number("--top-k", 5);
    const std::optional<RawSize> size = raw_size(call.arguments);
    if (call.arguments.operands().size() < 2) {
        throw UserError("which images? (see g2sd-runner --help)");
    }
    const Bundle bundle = open_bundle(call.bundle);
    const Variant& variant = bundle.variant(call.variant);
    refuse_failed(bundle, variant);
    const auto runner = open_runner(bundle, variant, call.threads);
    int status = 0;
    for (std::size_t i = 1; i < call.arguments.operands().size(); ++i) {
        const std::string& name = call.arguments.operands()[i];
        ImageBatch image;
        try {
            image = fitted(load_image(name, bundle.preprocessing.num_channels, size), bundle.preprocessing);
        } catch (const UserError& error) {
            refuse_image(name, error.what(), call.as_json, out, err);  // the other images are still wanted
            status = 1;
            continue;
        }
        write_predictions(name, best_classes(runner->infer(image), bundle.class_names, top_k), call.as_json, out);
    }
    return status;
}

void write_bench(const Json& found, std::ostream& out) {
    for (const Json& result : found.at("results").array()) {
        out << result.at("variant").string() << ": ";
        if (const Json* reason = result.find("reason")) {
            out << "not timed: " << reason->string() << '\n';
            continue;
        }
        for (const char* key : {"p50_ms", "p90_ms", "p99_ms"}) {
            out << std::string(key, 3) << ' ' << general(result.at(key).number(), 4) << " ms, ";
        }
        out << general(result.at("images_per_s").number(), 4) << " images/s, " << result.at("runtime").string() << ", "
            << result.at("threads").integer() << " threads, batch " << result.at("batch").integer() << '\n';
    }
}

int bench(const std::vector<std::string>& words, std::ostream& out) {
    const Call call = call_from(words, {"--batch", "--warmup", "--repeats"});
    refuse_more(call);
    const BenchSettings settings{call.arguments.number("--batch", 1), call.arguments.number("--warmup", 10, 0),
                                 call.arguments.number("--repeats", 100), call.threads};
    const Json found = run_bench(open_bundle(call.bundle), call.variant, settings);
    if (call.as_json) {
        out << found.dump() << '\n';
    } else {
        write_bench(found, out);
    }
    return 0;
}

}  // namespace

int run_command(const std::vector<std::string>& words, std::ostream& out, std::ostream& err) {
    if (words.empty() || std::find(words.begin(), words.end(), "--help") != words.end()) {
        (words.empty() ? err : out) << help;
        return words.empty() ? 2 : 0;
    }
    const std::vector<std::string> rest(words.begin() + 1, words.end());
    if (words.front() == "selftest") {
        return selftest(rest, out);
    }
    if (words.front() == "predict") {
        return predict(rest, out, err);
    }
    if (words.front() == "bench") {
        return bench(rest, out);
    }
    throw UserError(words.front() +
                    ": no such command; there are selftest, predict and bench (see g2sd-runner --help)");
}

}  // namespace g2sd
