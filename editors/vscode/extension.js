// Starts `proviso lsp` for rule files; everything else is the server's.
const { workspace } = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

exports.activate = async () => {
  const settings = workspace.getConfiguration("proviso");
  client = new LanguageClient(
    "proviso",
    "Proviso",
    { command: settings.get("path"), args: ["lsp"] },
    {
      documentSelector: [{ language: "proviso" }],
      initializationOptions: { model: settings.get("model"), allowedPaths: settings.get("allowedPaths") },
      synchronize: { fileEvents: workspace.createFileSystemWatcher("**/*.proviso") },
    },
  );
  await client.start();
};

exports.deactivate = () => client?.stop();
