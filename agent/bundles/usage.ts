/** What `--help` prints. Pure. */
export const USAGE = `Usage: setpoint <command>

Commands:
  bundle    create, inspect, vet, pack and unpack model bundles (setpoint bundle --help)

Exit code: 0 done, 1 error (with a remedy), 2 wrong usage
`;

export const BUNDLE_USAGE = `Usage: setpoint bundle <command> [options]

  create --model MODEL.onnx --spec SPEC.yaml -o DIR [options]
      make a bundle folder; golden vectors come from one of
        --golden DIR         an ONNX test data folder (input_0.pb ..., output_0.pb ...)
        --rows FILE.csv      input rows, one case each; the model gives the outputs
        (neither)            4 made-up rows inside the features' valid ranges
      --external FILE        external data that does not lie beside the model; may be repeated
      --file OUT.setpoint    also write the bundle as a single file
  inspect PATH [--json] [--vet]
      say what a bundle folder or file holds
  vet PATH [--json]
      load and run it in a process with limits, check its golden vectors, measure it
  pack DIR -o FILE.setpoint
  unpack FILE.setpoint -o DIR

Options of vet and inspect --vet:
  --inline-budget MICROS   p99 run time up to which a model runs on a serving thread (default 300)
  --deadline MILLIS        time for the whole vetting (default 30000)
  --memory-limit MIB       resident memory of the vet process (default 1024)

Exit code: 0 done, 1 error (with a remedy), 2 wrong usage
`;
